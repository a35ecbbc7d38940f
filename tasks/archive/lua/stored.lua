#!lua flags=no-writes
-- What is stored of a channel, before archived messages are put back.
--
-- Needs    stored.lua
-- KEYS  of restore.lua
-- ARGV  channel         name
-- Returns {base, size, own_epoch, unsure, floor} as in shared/stored.lua; but `unsure` is at most the base, which is nil
--         where the channel is gone
return { base or false, size, own_epoch, math.min(unsure, base or unsure), floor }
