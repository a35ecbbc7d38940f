-- The keys and arguments of check.lua by name.
--
-- Defines  updated, sizes, heads, polled, trimmed, meta, client, token, limit, history, longest   as in check.lua
--          epoch            of the shard's ids; nothing where it has none yet
local updated, sizes, heads, polled, trimmed, meta = unpack(KEYS, 1, 6)
local client, token = unpack(ARGV, 1, 2)
local limit, history, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local epoch = redis.call('HGET', meta, 'epoch')
