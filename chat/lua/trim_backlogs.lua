#!lua flags=allow-oom
-- Drop the oldest messages of the named channels: beyond `backlog`, or older than `message_timeout`.
--
-- KEYS  sizes, heads, trimmed, meta   see chat/_keys.py
--       log               of each channel, in the order of the names
-- ARGV  backlog           messages to keep at most
--       message_timeout   age in ms from which a message goes, 0 for no age limit
--       dry_run           1: count, change nothing; with an age limit count what only that drops
--       budget            messages to drop at most in this call; the rest stays due
--       name...           of the channels
-- Returns {messages} dropped; in a dry run followed by those of each name
local sizes, heads, trimmed, meta = unpack(KEYS, 1, 4)
local backlog, message_timeout = tonumber(ARGV[1]), tonumber(ARGV[2])
local dry_run, budget = ARGV[3] == '1', tonumber(ARGV[4])

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

local messages, lost, each = 0, 0, {}
for i = 5, #ARGV do
  local channel, log = ARGV[i], KEYS[i]
  local size, known_size = redis.call('LLEN', log), tonumber(redis.call('ZSCORE', sizes, channel))
  local beyond = math.max(size - backlog, 0)
  local drop = message_timeout > 0 and first_young(log, beyond, size) or beyond
  if dry_run then
    each[i - 4] = drop - (message_timeout > 0 and beyond or 0)
    messages = messages + each[i - 4]
  elseif size == 0 and not known_size then
    redis.call('ZREM', heads, channel) -- removed since it was named
  else
    drop = math.min(drop, budget - messages)
    messages = messages + drop
    if drop > 0 then redis.call('LTRIM', log, drop, -1) end
    local base = redis.call('HGET', trimmed, channel) or now_ms -- as in send.lua, where it was lost
    local gone = math.max((known_size or 0) - size, 0)
    lost = lost + gone
    redis.call('HSET', trimmed, channel, base + drop + gone)
    redis.call('ZADD', sizes, size - drop, channel)
    if size > drop then
      redis.call('ZADD', heads, sent_ms(log, 0), channel)
    else
      redis.call('ZREM', heads, channel)
    end
    if messages >= budget then break end
  end
end
if messages + lost > 0 and not dry_run then redis.call('HINCRBY', meta, 'removed', messages + lost) end
return { messages, unpack(each) }
