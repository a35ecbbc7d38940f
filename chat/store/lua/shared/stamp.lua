-- The time of a message.
--
-- Needs    time.lua
-- Defines  sent_ms_at(log, index)     time of the message at an index, 0 where there is none or it has none
--          stamp(updated, channel)    time of a new message, which `updated` then holds
local function sent_ms_at(log, index)
  local entry = index >= 0 and redis.call('LINDEX', log, index)
  return entry and tonumber(entry:match('^%d+')) or 0
end

-- A server clock that steps back does not unsort a log: a message is never stamped before its elder.
local function stamp(updated, channel)
  if redis.call('ZADD', updated, 'GT', 'CH', now_ms, channel) == 1 then return now_ms end
  local sent_ms = tonumber(redis.call('ZSCORE', updated, channel))
  if sent_ms <= now_ms + AHEAD_MS then return sent_ms end
  redis.call('ZADD', updated, now_ms, channel)
  return now_ms
end
