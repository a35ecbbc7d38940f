#!lua flags=allow-oom
-- Name the next candidates of a sweep in a shard, and hold the shard's lease while there are any.
-- In front stands by_age.lua or by_size.lua.
--
-- KEYS  lease            of this sweep in this shard
--       meta             of the shard
--       index            as of due.lua
-- ARGV  owner            token of this run
--       lease_ms         the lease lapses by itself after this long without a further call
--       limit            ms or messages
--       offset, batch    the page of candidates
--       mark             as of survey.lua
-- Returns {due, overdue_ms, name...}; without names nothing is left on this page and the lease is given back.
--         {-1, 0}: another run holds the lease
local lease, meta, index = unpack(KEYS)
local owner, lease_ms, limit, mark = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[6]
local offset, batch = tonumber(ARGV[4]), tonumber(ARGV[5])

local holder = redis.call('GET', lease)
if holder and holder ~= owner then return { -1, 0 } end

correct_times(index)
local due, overdue_ms = count_due(index, limit)
local names = page(index, offset, math.min(offset + batch, due) - 1)
if #names > 0 then
  redis.call('SET', lease, owner, 'PX', lease_ms)
elseif holder then
  redis.call('DEL', lease)
end
if due == 0 and mark ~= '' then redis.call('HSET', meta, mark, now_ms) end
return { due, overdue_ms, unpack(names) }
