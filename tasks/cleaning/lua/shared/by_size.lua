-- An index of sizes: a channel is due above `limit` messages, largest first.
--
-- Defines  count_due, page, correct_times   as by_age.lua does

local function count_due(index, limit)
  return redis.call('ZCOUNT', index, '(' .. limit, '+inf'), 0
end

local function page(index, first, last)
  return first <= last and redis.call('ZREVRANGE', index, first, last) or {}
end

local function correct_times() end
