#!lua flags=no-writes
-- Count the channels that are due in a shard, and name a page of them.
--
-- Needs    by_age.lua or by_size.lua
-- KEYS  index            updated, heads or polled (by age), or sizes (by size)
-- ARGV  limit            ms or messages
--       offset, batch    the page of candidates; a batch of 0 only counts
-- Returns {due, overdue_ms, name...}: how many are due, how far the first is past its limit (by age)
local index = KEYS[1]
local limit, offset, batch = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local due, overdue_ms = count_due(index, limit)
return { due, overdue_ms, unpack(page(index, offset, math.min(offset + batch, due) - 1)) }
