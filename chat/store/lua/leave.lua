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
    -- A call that is repeated finds no traces, so it does not take `trimmed` for lost.
    local floor = tonumber(redis.call('HGET', meta, 'floor') or 0)
    local last = tonumber(redis.call('HGET', trimmed, channel)) or traces > 0 and above_all(floor) or 0
    if last > floor then redis.call('HSET', meta, 'floor', last) end
    redis.call('HDEL', trimmed, channel)
  end
end

if forgotten > 0 then redis.call('HINCRBY', meta, 'clients', -forgotten) end
if redis.call('EXISTS', polled) == 0 then
  redis.call('HSET', meta, 'clients', 0) -- an empty shard: the account is right again
end
