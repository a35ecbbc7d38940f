-- What is stored of a channel that gets archived messages back.
--
-- Needs    unkept.lua
--          KEYS, ARGV[1]   of restore.lua
-- Defines  log, updated, sizes, heads, polled, trimmed, meta, channel   as in restore.lua
--          base            id before the first message; nothing where the channel is gone
--          size            messages
--          own_epoch       of the shard's ids, '' where it has none
--          floor           of the shard: no channel that is gone had an id above it
--          unsure          up to this id, others than the archive's may have been given
local log, updated, sizes, heads, polled, trimmed, meta = unpack(KEYS)
local channel = ARGV[1]

local base, size = tonumber(redis.call('HGET', trimmed, channel)), redis.call('LLEN', log)
local own_epoch = redis.call('HGET', meta, 'epoch') or ''
-- What went into an archive is known there, and what went without one had an id of at most `unkept`.
local floor, unkept = read_floor(meta)
local unsure = math.min(floor, unkept)
