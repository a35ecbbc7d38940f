#!lua flags=allow-oom
-- Read a channel's messages where `trimmed` was lost: give them new ids, which later calls use.
--
-- Needs    begin.lua, newest.lua
-- KEYS  as of history.lua
-- ARGV  as of history.lua
-- Returns as history.lua
local log, trimmed, meta, channel = KEYS[1], KEYS[2], KEYS[3], ARGV[1]

local base = tonumber(redis.call('HGET', trimmed, channel)) or begin(trimmed, meta, channel, true)
return newest(log, base)
