-- The ids of a channel. The message at index i of a log has the id base + i + 1, where `trimmed` holds the base:
-- whatever is lost must never make an id come twice.
--
-- Needs    time.lua
-- Defines  above_all(floor)   an id above every one that a channel can have had

-- One message a millisecond since 1970 is more than any channel has had. `floor` is of the channels removed.
local function above_all(floor)
  return math.max(tonumber(floor or 0), now_ms)
end
