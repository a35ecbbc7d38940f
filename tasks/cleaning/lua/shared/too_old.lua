-- Which messages of a log are too old, or too many?
--
-- Needs    time.lua
-- Defines  count_excess(log, size, backlog, message_timeout)   how many of the oldest go, and how many of these are
--                                                              too many anyway

local function sent_ms(log, index)
  local stamp = redis.call('LINDEX', log, index):match('^(%d+):')
  if not stamp then error({ err = 'ERR the entry at index ' .. index .. ' of its log is no message' }) end
  return tonumber(stamp)
end

-- Is the message at an index too old? One of a clock far ahead is as old as the next one with a credible stamp, at
-- least, and young where none of those is found before `high`: it looks at the next, then at twice as far, and so on.
local function is_too_old(log, index, high, message_timeout)
  local stamp, step = sent_ms(log, index), 1
  while stamp > now_ms + AHEAD_MS do
    index, step = index + step, 2 * step
    if index >= high then return false end
    stamp = sent_ms(log, index)
  end
  return now_ms - stamp >= message_timeout
end

local function count_excess(log, size, backlog, message_timeout)
  local beyond = math.max(size - backlog, 0)
  local low, high = beyond, size
  while low < high do -- logs are sorted by time (send.lua), so halve
    local middle = math.floor((low + high) / 2)
    if is_too_old(log, middle, high, message_timeout) then low = middle + 1 else high = middle end
  end
  return low, beyond
end
