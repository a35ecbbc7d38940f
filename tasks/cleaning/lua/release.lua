#!lua flags=allow-oom
-- Give back the lease of a sweep in a shard, unless it is another run's by now.
--
-- KEYS  lease            see chat/store/keys.py
-- ARGV  owner            token of this run
-- Returns nothing
local lease, owner = KEYS[1], ARGV[1]

if redis.call('GET', lease) == owner then redis.call('DEL', lease) end
