#!lua flags=allow-oom
-- Drop the oldest messages of the named channels: beyond `backlog`, or older than `message_timeout`.
--
-- KEYS  sizes, heads, trimmed, meta   see chat/store/keys.py
--       lease             of this sweep in this shard
--       log               of each channel, in the order of the names
-- ARGV  owner             of the lease; only the run that holds it removes
--       lease_ms          the lease is renewed for so long
--       backlog           messages to keep at most
--       message_timeout   age in ms from which a message goes, 0 for no age limit
--       mode              'remove'; 'count': change nothing, and with an age limit count what only that drops;
--                         'read': change nothing, give what would go
--       budget            messages to drop at most in this call; the rest stays due
--       name...           of the channels
--       id...             with an archive: of the last message handed over of each; no more goes. -1 leaves it alone
-- Returns {{messages} dropped, {of each name...}, {index of a name, error...}}; {} without the lease.
--         Of each name: to 'count' its messages, to 'remove' nothing, to 'read' {last id, entry...},
--         or {-1} where its turn comes later, or {0} where its ids were lost: the removal mends that
local sizes, heads, trimmed, meta, lease = unpack(KEYS, 1, 5)
local owner, lease_ms, backlog, message_timeout = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local mode, budget = ARGV[5], tonumber(ARGV[6])
local count = #KEYS - 5
local MOST, LARGEST, STEP = 1000, 1e6, 20 -- as in remove_channels.lua

if mode == 'remove' then
  if redis.call('GET', lease) ~= owner then return {} end
  redis.call('PEXPIRE', lease, lease_ms)
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local AHEAD = 3600e3 -- ms; a stamp further ahead than this is of a clock that was wrong, as in send.lua

local function sent_ms(log, index)
  local stamp = redis.call('LINDEX', log, index):match('^(%d+):')
  if not stamp then error({ err = 'ERR the entry at index ' .. index .. ' of its log is no message' }) end
  return tonumber(stamp)
end

-- Is the message at an index too old? One of a clock far ahead is as old as the next one with a credible stamp, at
-- least, and young where none of those is found before `high`: it looks at the next, then at twice as far, and so on.
local function too_old(log, index, high)
  local stamp, step = sent_ms(log, index), 1
  while stamp > now_ms + AHEAD do
    index, step = index + step, 2 * step
    if index >= high then return false end
    stamp = sent_ms(log, index)
  end
  return now_ms - stamp >= message_timeout
end

-- How many messages from index `low` on are too old? Logs are sorted by time (send.lua), so halve.
local function first_young(log, low, size)
  local high = size
  while low < high do
    local middle = math.floor((low + high) / 2)
    if too_old(log, middle, high) then low = middle + 1 else high = middle end
  end
  return low
end

local messages, lost, unkept, bytes, each, errors = 0, 0, 0, 0, {}, {}

local function read(log, base, drop)
  local reply = { base }
  while #reply <= drop and messages < MOST and bytes < LARGEST do
    for _, entry in ipairs(redis.call('LRANGE', log, #reply - 1, math.min(#reply + STEP - 1, drop) - 1)) do
      reply[#reply + 1] = entry
      messages, bytes = messages + 1, bytes + #entry
    end
  end
  reply[1] = base + #reply - 1
  return reply
end

-- All that may fail, since a key is of another type, comes before the first change.
local function trim(i)
  local channel, log, handed = ARGV[i + 6], KEYS[i + 5], tonumber(ARGV[i + 6 + count])
  if handed == -1 then return end
  local size, known_size = redis.call('LLEN', log), tonumber(redis.call('ZSCORE', sizes, channel))
  local base = tonumber(redis.call('HGET', trimmed, channel))
  local beyond = math.max(size - backlog, 0)
  local drop = message_timeout > 0 and first_young(log, beyond, size) or beyond
  if mode == 'count' then
    each[i] = drop - (message_timeout > 0 and beyond or 0)
    messages = messages + each[i]
  elseif mode == 'read' then
    if messages < MOST and bytes < LARGEST then each[i] = base and read(log, base, drop) or { 0 } end
  elseif size == 0 and not known_size then
    redis.call('ZREM', heads, channel) -- removed since it was named
  else
    base = base or math.max(now_ms, tonumber(redis.call('HGET', meta, 'floor') or 0)) -- as in send.lua, where it was lost
    if handed then drop = math.max(0, math.min(drop, handed - base)) end
    drop = math.min(drop, budget - messages)
    local gone = math.max((known_size or 0) - size, 0)
    if size > drop then
      local head_ms = tonumber(redis.call('LINDEX', log, drop):match('^%d+') or 0)
      redis.call('ZADD', heads, head_ms > now_ms + AHEAD and now_ms or head_ms, channel)
    else
      redis.call('ZREM', heads, channel)
    end
    if drop > 0 then redis.call('LTRIM', log, drop, -1) end
    redis.call('HSET', trimmed, channel, base + drop + gone)
    redis.call('ZADD', sizes, size - drop, channel)
    if size == drop and gone + (handed and 0 or drop) > 0 then unkept = math.max(unkept, base + drop + gone) end
    messages, lost = messages + drop, lost + gone
  end
end

for i = 1, count do
  if mode == 'remove' and messages >= budget then break end
  each[i] = mode == 'read' and { -1 } or 0
  local done, why = pcall(trim, i)
  if not done then
    errors[#errors + 1] = i
    errors[#errors + 1] = why.err or why
  end
end
if messages + lost > 0 and mode == 'remove' then redis.call('HINCRBY', meta, 'removed', messages + lost) end
if unkept > 0 then
  local known = redis.call('HMGET', meta, 'unkept', 'floor') -- as in remove_channels.lua
  if unkept > tonumber(known[1] or known[2] or 0) then redis.call('HSET', meta, 'unkept', unkept) end
end
return { { messages }, mode == 'remove' and {} or each, errors }
