-- The body of newest(log, base), the reply of history.lua and history_lost.lua: the newest messages of a log, as many
-- as a reply carries. `base` is the id before the log's first message.
--
-- Needs    room.lua
--          ARGV of history.lua
local log, base = ...
local limit, before, longest = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local size = redis.call('LLEN', log)
local stop = before > 0 and math.max(0, math.min(size, before - base - 1)) or size
local start = limit > 0 and math.max(0, stop - limit) or 0
if start >= stop then return { 0 } end

-- From the newest back, as many at a time as surely fit in; then in the log's order.
local parts, reply = {}, { base + stop }
while start < stop and (room > 0 or #parts == 0) do
  local fitting = math.max(1, math.min(STEP, math.floor(room / longest)))
  local part = redis.call('LRANGE', log, math.max(start, stop - fitting), stop - 1)
  parts[#parts + 1], stop = part, stop - #part
  for i = 1, #part do room = room - #part[i] - EACH end
end
local count = 1
for i = #parts, 1, -1 do
  for j = 1, #parts[i] do reply[count + j] = parts[i][j] end
  count = count + #parts[i]
end
return reply
