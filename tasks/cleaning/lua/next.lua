#!lua flags=allow-oom
-- Name the next candidates of a sweep in a shard, and give back the lease where nothing is due.
--
-- Needs    lease.lua, time.lua, by_age.lua or by_size.lua
-- KEYS  lease, meta      of this sweep in this shard; of the shard
--       index            as of due.lua
-- ARGV  owner, lease_ms  see lease.lua
--       limit            ms or messages
--       offset, batch    the page of candidates
--       mark             as of survey.lua
-- Returns {due, overdue_ms, name...}; without names nothing is left on this page. {} without the lease
local lease, meta, index = unpack(KEYS)
local limit, offset, batch, mark = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

correct_times(index)
local due, overdue_ms = count_due(index, limit)
local names = page(index, offset, math.min(offset + batch, due) - 1)
if due == 0 then redis.call('DEL', lease) end -- else a removal that is repeated may still need it
if due == 0 and mark ~= '' then redis.call('HSET', meta, mark, now_ms) end
return { due, overdue_ms, unpack(names) }
