-- Which clients of a channel stopped checking?
--
-- Needs    time.lua
-- Defines  expired(seen, timeout, most)   names of at most `most` clients that checked `timeout` ms ago or earlier; and
--                                         when the oldest of the others checked, or nothing where there is none
local FEW = 20 -- clients that one look shows whole

local function expired_of_many(seen, timeout, most)
  for _, name in ipairs(redis.call('ZRANGE', seen, now_ms + AHEAD_MS, '+inf', 'BYSCORE', 'LIMIT', 0, 100)) do
    redis.call('ZADD', seen, now_ms, name)
  end
  local names = redis.call('ZRANGE', seen, '-inf', now_ms - timeout, 'BYSCORE', 'LIMIT', 0, most)
  local oldest_ms = redis.call('ZRANGE', seen, #names, #names, 'WITHSCORES')[2]
  return names, oldest_ms and credible(tonumber(oldest_ms))
end

local function expired(seen, timeout, most)
  local clients, names, oldest_ms = redis.call('ZRANGE', seen, 0, FEW - 1, 'WITHSCORES'), {}, nil
  if #clients == 2 * FEW then return expired_of_many(seen, timeout, most) end
  for i = 1, #clients, 2 do
    local checked_ms = credible(tonumber(clients[i + 1]))
    if checked_ms < tonumber(clients[i + 1]) then redis.call('ZADD', seen, checked_ms, clients[i]) end
    if now_ms - checked_ms >= timeout and #names < most then
      names[#names + 1] = clients[i]
    else
      oldest_ms = math.min(oldest_ms or checked_ms, checked_ms)
    end
  end
  return names, oldest_ms
end
