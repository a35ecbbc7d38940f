-- Which messages of a log are too many?
--
-- Defines  count_excess(log, size, backlog)   how many of the oldest go, and how many of these by another rule: none

local function count_excess(_, size, backlog)
  return math.max(size - backlog, 0), 0
end
