#!lua flags=no-writes
-- Read a channel's messages; no client's position moves.
--
-- Needs    newest.lua
-- KEYS  log, trimmed, meta   see chat/store/keys.py
-- ARGV  channel          name
--       limit            messages at most, the newest ones; 0 for all
--       before           only messages with a smaller id than this, 0 for the newest of all
--       longest          bytes of the longest entry that is allowed
-- Returns {id of the last entry, entry...}, entries oldest first as in the log; about 1 MB of them, the newest ones.
--         The error LOST where `trimmed` was lost: the messages get new ids, which are written down, by history_lost.lua
local log, trimmed, channel = KEYS[1], KEYS[2], ARGV[1]

local base = tonumber(redis.call('HGET', trimmed, channel))
if not base and redis.call('EXISTS', log) == 1 then return { err = 'LOST the ids of this channel' } end
return newest(log, base or 0)
