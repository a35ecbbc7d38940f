#!lua flags=allow-oom
-- Drop the oldest messages of the named channels: beyond `backlog`, or older than `message_timeout`.
--
-- KEYS  sizes, heads, trimmed, meta   see chat/_keys.py
--       log               of each channel, in the order of the names
-- ARGV  backlog           messages to keep at most
--       message_timeout   age in ms from which a message goes, 0 for no age limit
--       mode              'remove'; 'count': change nothing, and with an age limit count what only that drops;
--                         'read': only give what would go
--       budget            messages to drop at most in this call; the rest stays due
--       name...           of the channels
--       id...             with an archive: of the last message handed over of each; no more goes. -1 leaves it alone
-- Returns {messages} dropped; to 'count' followed by those of each name; to 'read' by, for each name,
--         {last id, entry...}, or {-1} where its turn comes later
local sizes, heads, trimmed, meta = unpack(KEYS, 1, 4)
local backlog, message_timeout = tonumber(ARGV[1]), tonumber(ARGV[2])
local mode, budget = ARGV[3], tonumber(ARGV[4])
local count = #KEYS - 4
local MOST, LARGEST, STEP = 1000, 1e6, 20 -- as in remove_channels.lua

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function sent_ms(log, index) return tonumber(redis.call('LINDEX', log, index):match('^%d+') or 0) end

-- How many messages from index `low` on are too old? Logs are sorted by time (send.lua), so halve.
local function first_young(log, low, size)
  local high = size
  while low < high do
    local middle = math.floor((low + high) / 2)
    if now_ms - sent_ms(log, middle) >= message_timeout then low = middle + 1 else high = middle end
  end
  return low
end

local messages, lost, unkept, bytes, each = 0, 0, 0, 0, {}

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

for i = 1, count do
  local channel, log, handed = ARGV[i + 4], KEYS[i + 4], tonumber(ARGV[i + 4 + count])
  local size, known_size = redis.call('LLEN', log), tonumber(redis.call('ZSCORE', sizes, channel))
  local beyond = math.max(size - backlog, 0)
  local drop = message_timeout > 0 and first_young(log, beyond, size) or beyond
  if mode == 'count' then
    each[i] = drop - (message_timeout > 0 and beyond or 0)
    messages = messages + each[i]
  elseif mode == 'read' then
    each[i] = { -1 }
    if messages < MOST and bytes < LARGEST then
      local base = redis.call('HGET', trimmed, channel)
      if not base then
        base = now_ms -- as in send.lua, where it was lost
        redis.call('HSET', trimmed, channel, base)
      end
      each[i] = read(log, tonumber(base), drop)
    end
  elseif size == 0 and not known_size then
    redis.call('ZREM', heads, channel) -- removed since it was named
  elseif handed ~= -1 then
    local base = redis.call('HGET', trimmed, channel) or now_ms -- as in send.lua, where it was lost
    if handed then drop = math.max(0, math.min(drop, handed - base)) end
    drop = math.min(drop, budget - messages)
    messages = messages + drop
    if drop > 0 then redis.call('LTRIM', log, drop, -1) end
    local gone = math.max((known_size or 0) - size, 0)
    lost = lost + gone
    redis.call('HSET', trimmed, channel, base + drop + gone)
    if size == drop and gone + (handed and 0 or drop) > 0 then unkept = math.max(unkept, base + drop + gone) end
    redis.call('ZADD', sizes, size - drop, channel)
    if size > drop then
      redis.call('ZADD', heads, sent_ms(log, 0), channel)
    else
      redis.call('ZREM', heads, channel)
    end
    if messages >= budget then break end
  end
end
if messages + lost > 0 and mode == 'remove' then redis.call('HINCRBY', meta, 'removed', messages + lost) end
local known = redis.call('HMGET', meta, 'unkept', 'floor') -- as in remove_channels.lua
if unkept > tonumber(known[1] or known[2] or 0) then redis.call('HSET', meta, 'unkept', unkept) end
return { messages, unpack(each) }
