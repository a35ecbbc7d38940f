#!lua flags=allow-oom
-- Take the lease of a sweep in a shard, unless another run holds it. It lapses by itself.
--
-- KEYS  lease            see chat/store/keys.py
-- ARGV  owner            token of this run
--       lease_ms         for so long
-- Returns nothing
local lease, owner, lease_ms = KEYS[1], ARGV[1], ARGV[2]

redis.call('SET', lease, owner, 'NX', 'PX', lease_ms)
