#!lua flags=no-writes
-- Would messages of an archive follow on what is stored of a channel? For a dry run.
--
-- Needs    joining.lua
-- KEYS  of restore.lua
-- ARGV  of restore.lua
-- Returns {1}: they are stored, or would be; {0}: they do not follow on what is stored
return { 1 }
