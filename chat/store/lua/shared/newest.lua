-- The newest messages of a log, as many as a reply carries: what history.lua and history_lost.lua share.
--
-- Needs    entries.lua
-- Defines  newest(log, base, limit, before, longest)   their reply; `base` is the id before the log's first message

-- From the newest back, as many at a time as surely fit in; then in the log's order.
local function newest(log, base, limit, before, longest)
  limit, before, longest = tonumber(limit), tonumber(before), tonumber(longest)
  local size = redis.call('LLEN', log)
  local stop = before > 0 and math.max(0, math.min(size, before - base - 1)) or size
  local start = limit > 0 and math.max(0, stop - limit) or 0
  if start >= stop then return { 0 } end

  local parts, reply = {}, { base + stop }
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
end
