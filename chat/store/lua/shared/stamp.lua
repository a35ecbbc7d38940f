-- The time of a message.
--
-- Defines  sent_ms_at(log, index)     time of the message at an index, 0 where there is none or it has none
local function sent_ms_at(log, index)
  local entry = index >= 0 and redis.call('LINDEX', log, index)
  return entry and tonumber(entry:match('^%d+')) or 0
end
