#!lua flags=allow-oom
-- Forget a client of a channel at once; one that is not connected is no error.
--
-- KEYS  updated, polled, trimmed, meta   see chat/store/keys.py
--       log, seen, read   of the channel
-- ARGV  channel          name
--       client           name
-- Returns nothing
local updated, polled, trimmed, meta, log, seen, read = unpack(KEYS)
local channel, client = ARGV[1], ARGV[2]

local forgotten = redis.call('HDEL', read, client)
local traces = forgotten + redis.call('ZREM', seen, client)
local oldest = redis.call('ZRANGE', seen, 0, 0, 'WITHSCORES')
if #oldest > 0 then
  redis.call('ZADD', polled, credible(tonumber(oldest[2])), channel)
else
  local orphans = redis.call('HLEN', read) -- positions whose `seen` was lost
  traces, forgotten = traces + orphans + redis.call('ZREM', polled, channel), forgotten + orphans
  redis.call('UNLINK', read)
  if redis.call('EXISTS', log) == 0 and not redis.call('ZSCORE', updated, channel) then
    -- The channel itself went before its last client: nothing of it stays but the shard's floor.
    local floor = tonumber(redis.call('HGET', meta, 'floor') or 0)
    local last = last_id(tonumber(redis.call('HGET', trimmed, channel)), traces > 0, floor)
    if last > floor then redis.call('HSET', meta, 'floor', last) end
    redis.call('HDEL', trimmed, channel)
  end
end
count_forgotten(meta, polled, forgotten)
