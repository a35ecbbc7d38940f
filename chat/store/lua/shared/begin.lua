-- The body of begin(trimmed, meta, channel, traces): give a channel without a base one, and return it.
-- A channel without any trace begins above every id of the shard's removed channels; any other has lost its `trimmed`.
--
-- Needs    ids.lua
local trimmed, meta, channel, traces = ...

local floor = redis.call('HGET', meta, 'floor')
local base = traces and above_all(floor) or tonumber(floor or 0)
redis.call('HSET', trimmed, channel, base)
return base
