#!lua flags=allow-oom
-- Remove those of the named channels that are idle: a message that came in between keeps its channel.
--
-- KEYS  updated, sizes, heads, polled, trimmed, meta   see chat/_keys.py
--       log               of each channel, in the order of the names
-- ARGV  channel_timeout   ms without a message
--       dry_run           1: count, change nothing
--       name...           of the channels
-- Returns {channels, messages} removed; in a dry run followed by those of each name
local updated, sizes, heads, polled, trimmed, meta = unpack(KEYS, 1, 6)
local channel_timeout, dry_run = tonumber(ARGV[1]), ARGV[2] == '1'

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local channels, messages, floor, each = 0, 0, 0, {}
for i = 3, #ARGV do
  local channel, log = ARGV[i], KEYS[i + 4]
  local updated_ms = redis.call('ZSCORE', updated, channel)
  each[i - 2] = 0
  if updated_ms and now_ms - updated_ms >= channel_timeout then
    local size = redis.call('LLEN', log)
    channels, messages = channels + 1, messages + size
    if dry_run then
      each[i - 2] = size
    else
      local base = redis.call('HGET', trimmed, channel) or now_ms -- as in send.lua, where it was lost
      local stored = math.max(size, tonumber(redis.call('ZSCORE', sizes, channel) or 0))
      local last = base + stored
      redis.call('HINCRBY', meta, 'removed', stored)
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
if floor > tonumber(redis.call('HGET', meta, 'floor') or 0) then redis.call('HSET', meta, 'floor', floor) end
if channels > 0 and not dry_run and redis.call('EXISTS', sizes) == 0 then
  redis.call('HSET', meta, 'removed', redis.call('HGET', meta, 'sent') or 0) -- an empty shard: the account is right again
end
return { channels, messages, unpack(dry_run and each or {}) }
