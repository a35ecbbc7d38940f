#!lua flags=allow-oom
-- Remove those of the named channels that are idle: a message that came in between keeps its channel.
--
-- KEYS  updated, sizes, heads, polled, trimmed, meta   see chat/_keys.py
--       log               of each channel, in the order of the names
-- ARGV  channel_timeout   ms without a message
--       mode              'remove'; 'tell': and which; 'count': change nothing; 'read': only give what would go
--       name...           of the channels
--       id...             with an archive: of the last message handed over of each; no more goes. -1 leaves it alone
-- Returns {channels, messages} removed; to 'count' followed by the messages of each name; to 'tell' by 1 or 0;
--         to 'read' by, for each name, {last id, entry...}, or {-1} where it is not due, or its turn comes later
local updated, sizes, heads, polled, trimmed, meta = unpack(KEYS, 1, 6)
local channel_timeout, mode = tonumber(ARGV[1]), ARGV[2]
local count = #KEYS - 6
local MOST, LARGEST, STEP = 1000, 1e6, 20 -- messages and bytes that one call reads, about

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local channels, messages, floor, unkept, bytes, each = 0, 0, 0, 0, 0, {}

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
  redis.call('LTRIM', log, drop, -1)
  redis.call('HSET', trimmed, channel, base + drop)
  redis.call('ZINCRBY', sizes, -drop, channel)
  redis.call('ZADD', heads, redis.call('LINDEX', log, 0):match('^%d+'), channel)
  redis.call('HINCRBY', meta, 'removed', drop)
end

for i = 1, count do
  local channel, log, handed = ARGV[i + 2], KEYS[i + 6], tonumber(ARGV[i + 2 + count])
  local updated_ms = redis.call('ZSCORE', updated, channel)
  each[i] = mode == 'read' and { -1 } or 0
  if updated_ms and now_ms - updated_ms >= channel_timeout and handed ~= -1 then
    local size = redis.call('LLEN', log)
    local base = redis.call('HGET', trimmed, channel)
    if not base then
      base = now_ms -- as in send.lua, where it was lost
      if mode == 'read' then redis.call('HSET', trimmed, channel, base) end
    end
    if mode == 'read' then
      if messages < MOST and bytes < LARGEST then each[i] = read(log, tonumber(base), size) end
    elseif mode == 'count' then
      channels, messages = channels + 1, messages + size
      each[i] = size
    elseif handed and handed < base + size then
      local drop = math.max(0, handed - base)
      messages = messages + drop
      if drop > 0 then shorten(channel, log, base, drop) end
    else
      local stored = math.max(size, tonumber(redis.call('ZSCORE', sizes, channel) or 0))
      local last = base + stored
      channels, messages = channels + 1, messages + size
      each[i] = 1
      redis.call('HINCRBY', meta, 'removed', stored)
      if stored > (handed and size or 0) then unkept = math.max(unkept, last) end
      redis.call('UNLINK', log)
      redis.call('ZREM', updated, channel)
      redis.call('ZREM', sizes, channel)
      redis.call('ZREM', heads, channel)
      if redis.call('ZSCORE', polled, channel) then
        redis.call('HSET', trimmed, channel, last) -- its clients go on with the next id
      else
        redis.call('HDEL', trimmed, channel)
        floor = math.max(floor, last)
      end
    end
  end
end
if channels > 0 and mode ~= 'count' then
  -- Without `unkept` a version without it was at work: all that it removed may have gone without an archive.
  local known_floor = tonumber(redis.call('HGET', meta, 'floor') or 0)
  unkept = math.max(unkept, tonumber(redis.call('HGET', meta, 'unkept') or known_floor))
  redis.call('HSET', meta, 'unkept', unkept, 'floor', math.max(known_floor, floor))
  if redis.call('EXISTS', sizes) == 0 then -- an empty shard: the account is right again
    local account = redis.call('HMGET', meta, 'sent', 'removed', 'restored')
    redis.call('HSET', meta, 'adjusted', (account[2] or 0) - (account[3] or 0) - (account[1] or 0))
  end
end
return { channels, messages, unpack(mode == 'remove' and {} or each) }
