#!lua flags=allow-oom
-- Do as check.lua does while Redis is full: people go on reading, but who is not known yet is not written down.
--
-- KEYS  as of check.lua
-- ARGV  as of check.lua
-- Returns as check.lua, with an error for each channel where the client has no position
return check_all({ err = 'OOM the client is not known in this channel yet' })
