-- An index of times: a channel is due `limit` ms after its time, longest due first.
--
-- Needs    time.lua
-- Defines  count_due(index, limit)     channels due, and how many ms the first is past its limit
--          page(index, first, last)    channels of these ranks
--          correct_times(index)        make a time of a clock that was wrong one of now

local function count_due(index, limit)
  local due = redis.call('ZCOUNT', index, '-inf', now_ms - limit)
  if due == 0 then return 0, 0 end
  return due, now_ms - limit - redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')[2]
end

-- By rank, so a page costs the same however deep: what is due lies at one end of its index.
local function page(index, first, last)
  return first <= last and redis.call('ZRANGE', index, first, last) or {}
end

local function correct_times(index)
  local ahead_ms = now_ms + AHEAD_MS
  if redis.call('ZCOUNT', index, ahead_ms, '+inf') == 0 then return end
  for _, name in ipairs(redis.call('ZRANGE', index, ahead_ms, '+inf', 'BYSCORE', 'LIMIT', 0, 100)) do
    redis.call('ZADD', index, now_ms, name)
  end
end
