#!lua flags=allow-oom
-- Forget a client of a channel at once; one that is not connected is no error.
-- All that may fail, since a key is damaged, comes before the first change.
--
-- Needs    time.lua, numbers.lua, last_client.lua
-- KEYS  updated, polled, trimmed, meta   see chat/store/keys.py
--       log, seen, read   of the channel
-- ARGV  channel          name
--       client           name
-- Returns nothing
local updated, polled, trimmed, meta, log, seen, read = unpack(KEYS)
local channel, client = ARGV[1], ARGV[2]

confirm_numbers(meta, 'clients', 'floor')
local known, positions = redis.call('HEXISTS', read, client), redis.call('HLEN', read)
local polled_ms = redis.call('ZSCORE', polled, channel)
local oldest = redis.call('ZRANGE', seen, 0, 1, 'WITHSCORES')
local other_ms = oldest[oldest[1] == client and 4 or 2]

if other_ms then
  redis.call('HDEL', read, client)
  redis.call('ZREM', seen, client)
  redis.call('ZADD', polled, credible(tonumber(other_ms)), channel)
  return count_forgotten(meta, polled, known)
end

if redis.call('EXISTS', log) == 0 and not redis.call('ZSCORE', updated, channel) then
  -- The channel itself went before its last client: nothing of it stays but the shard's floor.
  local floor = tonumber(redis.call('HGET', meta, 'floor') or 0)
  local traces = positions > 0 or #oldest > 0 or polled_ms
  local last = last_id(tonumber(redis.call('HGET', trimmed, channel)), traces, floor)
  if last > floor then redis.call('HSET', meta, 'floor', last) end
  redis.call('HDEL', trimmed, channel)
end
redis.call('UNLINK', seen, read)
redis.call('ZREM', polled, channel)
count_forgotten(meta, polled, positions) -- also those whose `seen` was lost
