#!lua flags=allow-oom
-- Check while Redis is full. Known clients go on reading; unknown ones are not stored.
--
-- Needs    channels.lua
-- KEYS  as of check.lua
-- ARGV  as of check.lua
-- Returns as check.lua, with an error for each channel where the client has no position
return check_all({ err = 'OOM the client is not known in this channel yet' })
