-- Forget the expired clients of one channel.
--
-- Needs    time.lua
-- Defines  expire(seen, read, timeout, most)   forget at most `most` clients that checked `timeout` ms ago or earlier;
--                                              their names, how many had a position, and when the eldest client that
--                                              is left checked, or nothing where none is left

local function expire(seen, read, timeout, most)
  local ahead_ms = now_ms + AHEAD_MS
  for _, name in ipairs(redis.call('ZRANGE', seen, ahead_ms, '+inf', 'BYSCORE', 'LIMIT', 0, 100)) do
    redis.call('ZADD', seen, now_ms, name) -- as in by_age.lua
  end
  local names, forgotten = redis.call('ZRANGE', seen, '-inf', now_ms - timeout, 'BYSCORE', 'LIMIT', 0, most), 0
  if #names > 0 then
    forgotten = redis.call('HDEL', read, unpack(names))
    redis.call('ZREM', seen, unpack(names))
  end
  local eldest_ms = redis.call('ZRANGE', seen, 0, 0, 'WITHSCORES')[2]
  if eldest_ms and tonumber(eldest_ms) > ahead_ms then eldest_ms = now_ms end
  return names, forgotten, eldest_ms
end
