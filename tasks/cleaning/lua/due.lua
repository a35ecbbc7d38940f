#!lua flags=allow-oom
-- Name the next candidates of a sweep in one shard, and hold the shard's lease while there are any.
-- By rank, so a page costs the same however deep: what is due lies at one end of its index.
--
-- KEYS  index            updated, heads or polled (by age), or sizes (by size)
--       lease            of this sweep in this shard
--       meta             of the shard
-- ARGV  by               'age': due when the score (ms) is `limit` ms in the past or more
--                        'size': due when the score is above `limit`
--       limit            ms or messages
--       offset, batch    the page of candidates, longest due or largest first
--       owner            token of this run, '' to look without a lease
--       lease_ms         the lease lapses by itself after this long without a further call
--       mark             field of `meta` that gets the time when nothing is due, '' to write nothing
-- Returns {due, overdue_ms, name...}: how many are due, how far the first is past its limit (by age).
--         Without names nothing is left on this page and the lease is given back.
--         {-1, 0}: another run holds the lease
local index, lease, meta = unpack(KEYS)
local by, limit, offset, batch = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local owner, lease_ms, mark = ARGV[5], tonumber(ARGV[6]), ARGV[7]

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- A stamp more than an hour ahead is of a clock that was wrong: it counts as now. Who only looks changes nothing.
local ahead_ms = now_ms + 3600e3
if by == 'age' and (owner ~= '' or mark ~= '') and redis.call('ZCOUNT', index, ahead_ms, '+inf') > 0 then
  for _, name in ipairs(redis.call('ZRANGE', index, ahead_ms, '+inf', 'BYSCORE', 'LIMIT', 0, 100)) do
    redis.call('ZADD', index, now_ms, name)
  end
end

local due, overdue_ms, names = 0, 0, {}
if by == 'age' then
  due = redis.call('ZCOUNT', index, '-inf', now_ms - limit)
  if due > 0 then overdue_ms = now_ms - limit - redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')[2] end
else
  due = redis.call('ZCOUNT', index, '(' .. limit, '+inf')
end

local stop = math.min(offset + batch, due) - 1
if stop >= offset then
  names = redis.call(by == 'age' and 'ZRANGE' or 'ZREVRANGE', index, offset, stop)
end

if owner ~= '' then
  local holder = redis.call('GET', lease)
  if holder and holder ~= owner then return { -1, 0 } end
  if #names > 0 then
    redis.call('SET', lease, owner, 'PX', lease_ms)
  elseif holder then
    redis.call('DEL', lease)
  end
end
if due == 0 and mark ~= '' then redis.call('HSET', meta, mark, now_ms) end
return { due, overdue_ms, unpack(names) }
