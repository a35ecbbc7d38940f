#!lua flags=allow-oom
-- Read a channel's messages; no client's position moves.
--
-- KEYS  log, trimmed     see chat/_keys.py
-- ARGV  channel          name
--       limit            messages at most, the newest ones; 0 for all
--       before           only messages with a smaller id than this, 0 for the newest of all
-- Returns {id of the last entry, entry...}, entries oldest first as in the log
local log, trimmed = KEYS[1], KEYS[2]
local channel, limit, before = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local size = redis.call('LLEN', log)
local base = tonumber(redis.call('HGET', trimmed, channel))
if size > 0 and not base then
  local time = redis.call('TIME') -- as in send.lua: `trimmed` was lost
  base = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', trimmed, channel, base)
end

local stop = size -- how many of the log's entries lie before the end of what is asked for
if before > 0 then stop = math.max(0, math.min(size, before - (base or 0) - 1)) end
local start = limit > 0 and math.max(0, stop - limit) or 0
if start >= stop then return { 0 } end
local reply = { base + stop }
for index, entry in ipairs(redis.call('LRANGE', log, start, stop - 1)) do
  reply[index + 1] = entry
end
return reply
