#!lua flags=allow-oom
-- Remove those of the named channels that are idle: a message that came in between keeps its channel.
--
-- KEYS  updated, sizes, heads, polled, trimmed, meta   see chat/store/keys.py
--       lease             of this sweep in this shard
--       log               of each channel, in the order of the names
-- ARGV  owner             of the lease; only the run that holds it removes
--       lease_ms          the lease is renewed for so long
--       channel_timeout   ms without a message
--       mode              'remove'; 'tell': and which; 'count', 'read': change nothing, 'read' gives what would go
--       name...           of the channels
--       id...             with an archive: of the last message handed over of each; no more goes. -1 leaves it alone
-- Returns {{channels, messages} removed, {of each name...}, {index of a name, error...}}; {} without the lease.
--         Of each name: to 'count' its messages, to 'tell' 1 or 0, to 'remove' nothing, to 'read' {last id, entry...},
--         or {-1} where it is not due or its turn comes later, or {0} where its ids were lost: the removal mends that
local updated, sizes, heads, polled, trimmed, meta, lease = unpack(KEYS, 1, 7)
local owner, lease_ms, channel_timeout, mode = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local count = #KEYS - 7
local MOST, LARGEST, STEP = 1000, 1e6, 20 -- messages and bytes that one call reads, about

if mode == 'remove' or mode == 'tell' then
  if redis.call('GET', lease) ~= owner then return {} end
  redis.call('PEXPIRE', lease, lease_ms)
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- Without `unkept` a version without it was at work: all that it removed may have gone without an archive.
local known = redis.call('HMGET', meta, 'floor', 'unkept')
local floor = tonumber(known[1] or 0)
local unkept = tonumber(known[2] or floor)
local channels, messages, removed, bytes, each, errors = 0, 0, 0, 0, {}, {}

local function read(log, base, size)
  local reply = { base }
  while #reply <= size and messages < MOST and bytes < LARGEST do
    for _, entry in ipairs(redis.call('LRANGE', log, #reply - 1, math.min(#reply + STEP - 1, size) - 1)) do
      reply[#reply + 1] = entry
      messages, bytes = messages + 1, bytes + #entry
    end
  end
  reply[1] = base + #reply - 1
  return reply
end

-- More is stored than was handed over: the rest stays due.
local function shorten(channel, log, base, drop)
  redis.call('ZADD', heads, redis.call('LINDEX', log, drop):match('^%d+') or 0, channel)
  redis.call('LTRIM', log, drop, -1)
  redis.call('HSET', trimmed, channel, base + drop)
  redis.call('ZINCRBY', sizes, -drop, channel)
  messages, removed = messages + drop, removed + drop
end

-- All that may fail, since a key is of another type, comes before the first change: a channel goes whole or not at all.
local function remove(i)
  local channel, log, handed = ARGV[i + 4], KEYS[i + 7], tonumber(ARGV[i + 4 + count])
  local updated_ms = redis.call('ZSCORE', updated, channel)
  if not updated_ms or now_ms - updated_ms < channel_timeout or handed == -1 then return end
  local size = redis.call('LLEN', log)
  local known = tonumber(redis.call('HGET', trimmed, channel))
  local base = known or math.max(now_ms, floor) -- as in send.lua, where it was lost
  if mode == 'read' then
    if messages < MOST and bytes < LARGEST then each[i] = known and read(log, base, size) or { 0 } end
  elseif mode == 'count' then
    channels, messages = channels + 1, messages + size
    each[i] = size
  elseif handed and handed < base + size then
    if handed > base then shorten(channel, log, base, handed - base) end
    if not known then redis.call('HSET', trimmed, channel, base) end
  else
    local known_size = tonumber(redis.call('ZSCORE', sizes, channel))
    if size == 0 and not known_size then base = math.max(base, now_ms) end -- log and size were lost: as above
    local stored = math.max(size, known_size or 0)
    if stored > (handed and size or 0) or size == 0 and not known_size then unkept = math.max(unkept, base + stored) end
    local connected = redis.call('ZSCORE', polled, channel)
    redis.call('ZREM', heads, channel)
    if connected then
      redis.call('HSET', trimmed, channel, base + stored) -- its clients go on with the next id
    else
      redis.call('HDEL', trimmed, channel)
      floor = math.max(floor, base + stored)
    end
    redis.call('ZREM', updated, channel)
    redis.call('ZREM', sizes, channel)
    redis.call('UNLINK', log)
    channels, messages, removed = channels + 1, messages + size, removed + stored
    each[i] = 1
  end
end

for i = 1, count do
  each[i] = mode == 'read' and { -1 } or 0
  local done, why = pcall(remove, i)
  if not done then
    errors[#errors + 1] = i
    errors[#errors + 1] = why.err or why
  end
end
if removed > 0 then redis.call('HINCRBY', meta, 'removed', removed) end
if channels > 0 and mode ~= 'count' then
  redis.call('HSET', meta, 'unkept', unkept, 'floor', floor)
  if redis.call('EXISTS', sizes) == 0 then -- an empty shard: the account is right again
    local account = redis.call('HMGET', meta, 'sent', 'removed', 'restored')
    redis.call('HSET', meta, 'adjusted', (account[2] or 0) - (account[3] or 0) - (account[1] or 0))
  end
end
return { { channels, messages }, mode == 'remove' and {} or each, errors }
