#!lua
-- Put messages back below a channel's log, or begin a channel with them that is gone; twice is no harm.
-- No allow-oom: a full Redis refuses the whole script.
--
-- KEYS  log, updated, sizes, heads, trimmed, meta   see chat/_keys.py
-- ARGV  channel         name
--       last            id of the last of the messages
--       entry...        as in the log, oldest first
-- Returns {1}; or {0, id}: the log needs the messages up to that id first
local log, updated, sizes, heads, trimmed, meta = unpack(KEYS)
local channel, last = ARGV[1], tonumber(ARGV[2])
local count = #ARGV - 2

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local base = tonumber(redis.call('HGET', trimmed, channel))
if not base and redis.call('EXISTS', log) == 1 then return { 0, 0 } end -- `trimmed` was lost: a send or check mends it
if base and base ~= last then return { 0, base } end

for i = #ARGV, 3, -1 do redis.call('LPUSH', log, ARGV[i]) end
redis.call('HSET', trimmed, channel, last - count)
redis.call('ZINCRBY', sizes, count, channel)
redis.call('ZADD', heads, ARGV[3]:match('^%d+'), channel)
redis.call('ZADD', updated, 'NX', now_ms, channel) -- a channel that was gone is idle after the full time
redis.call('HINCRBY', meta, 'restored', count)
return { 1 }
