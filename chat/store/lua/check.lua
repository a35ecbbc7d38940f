#!lua
-- Give a client what it has not read of some channels of a shard, and move its positions past that.
-- No allow-oom: a full Redis refuses the whole script, as it may write down new clients and channels.
--
-- Needs    channels.lua
-- KEYS  updated, sizes, heads, polled, trimmed, meta   see chat/store/keys.py
--       log, seen, read...   of each channel
-- ARGV  client            its name
--       token             unique to this call; the same on its repeat
--       limit             messages at most of a channel, 0 for all that is stored
--       history           latest messages a new client gets
--       longest           bytes of the longest entry that is allowed
--       channel, cursor...   of each channel: its name, and "<epoch> <position> <sent ms>" of the caller, or nothing;
--                            "?" before it: only where the client is not known any more
-- Returns for each channel {epoch, new 0|1, missed, more 0|1, position, sent_ms of the message there or 0, entry...},
--         entries oldest first as in the log; or the error that only it had.
--         The entries of a call are 1 MB together, about, but at least one of each channel that has any.
return check_all()
