#!lua flags=allow-oom
-- Return the epoch of a shard's ids, made where there is none: also while Redis is full, as an archive needs it then.
--
-- KEYS  meta             of the shard, see chat/store/keys.py
-- ARGV  epoch            12 random hex digits, used where there is none
-- Returns the epoch
local meta, epoch = KEYS[1], ARGV[1]

redis.call('HSETNX', meta, 'epoch', epoch)
return redis.call('HGET', meta, 'epoch')
