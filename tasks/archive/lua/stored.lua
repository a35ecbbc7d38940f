#!lua flags=no-writes
-- What is stored of a channel, before archived messages are put back.
--
-- Needs    stored.lua
-- KEYS  of restore.lua
-- ARGV  channel         name
-- Returns {base, size, epoch, unsure, floor} as in shared/stored.lua; the base is nil where the channel is gone
return { base or false, size, own_epoch, math.min(unsure, base or unsure), floor }
