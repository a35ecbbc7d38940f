-- The server's time, read once for all that a script does, and the times of messages.
--
-- Defines  time             seconds and microseconds, as TIME returns them
--          now_ms           ms since 1970
--          AHEAD_MS         a stamp further ahead than this is of a clock that was wrong: it counts as now
--          credible(ms)     a stamp, or now where it is of a clock that was wrong
--          sent_ms_at(log, index)   time of the message at an index, 0 where there is none or it has none
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local AHEAD_MS = 3600e3

local function credible(ms) return ms > now_ms + AHEAD_MS and now_ms or ms end

local function sent_ms_at(log, index)
  local entry = index >= 0 and redis.call('LINDEX', log, index)
  return entry and tonumber(entry:match('^%d+')) or 0
end
