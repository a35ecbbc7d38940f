#!lua flags=allow-oom
-- Count the channels that are due in a shard when a sweep begins, and note the time where none is.
--
-- Needs    time.lua, by_age.lua or by_size.lua
-- KEYS  index            as of due.lua
--       meta             of the shard
-- ARGV  limit            ms or messages
--       mark             field of `meta` that gets the time when nothing is due, '' to write nothing
-- Returns {due, overdue_ms}
local index, meta = KEYS[1], KEYS[2]
local limit, mark = tonumber(ARGV[1]), ARGV[2]

correct_times(index)
local due, overdue_ms = count_due(index, limit)
if due == 0 and mark ~= '' then redis.call('HSET', meta, mark, now_ms) end
return { due, overdue_ms }
