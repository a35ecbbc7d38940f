#!lua flags=allow-oom
-- Read a channel's messages; no client's position moves.
--
-- KEYS  log, trimmed     see chat/store/keys.py
-- ARGV  channel          name
--       limit            messages at most, the newest ones; 0 for all
--       before           only messages with a smaller id than this, 0 for the newest of all
--       longest          bytes of the longest entry that is allowed
-- Returns {id of the last entry, entry...}, entries oldest first as in the log; about 1 MB of them, the newest ones
local log, trimmed = KEYS[1], KEYS[2]
local channel, limit, before, longest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local EACH, STEP = 100, 16 -- as in reading.lua

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

-- From the newest back, as many at a time as surely fit in; then in the log's order.
local parts, room, reply = {}, 1e6, { base + stop }
while start < stop and (room > 0 or #parts == 0) do
  local fitting = math.max(1, math.min(STEP, math.floor(room / longest)))
  local part = redis.call('LRANGE', log, math.max(start, stop - fitting), stop - 1)
  parts[#parts + 1] = part
  stop = stop - #part
  for _, entry in ipairs(part) do room = room - #entry - EACH end
end
for i = #parts, 1, -1 do
  for _, entry in ipairs(parts[i]) do reply[#reply + 1] = entry end
end
return reply
