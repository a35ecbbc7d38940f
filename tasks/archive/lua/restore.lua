#!lua
-- Put messages of an archive back below a channel's log, or begin a channel that is gone with them.
-- No allow-oom: a full Redis refuses the whole script.
--
-- KEYS  log, updated, sizes, heads, polled, trimmed, meta   see chat/store/keys.py
-- ARGV  channel         name
--       last            id of the last of the messages
--       begin           1: a channel that is gone may begin with them; 0: they only follow on messages
--       other_epoch     1: they are of another epoch than the shard's ids
--       entry...        as in the log, oldest first
-- Returns {1}: they are stored now; {0}: they do not follow on what is stored, and nothing was changed
local first = 5 -- place of the oldest entry in ARGV

for i = first + missing - 1, first, -1 do redis.call('LPUSH', log, ARGV[i]) end
redis.call('HSET', trimmed, channel, base - missing)
redis.call('ZINCRBY', sizes, missing, channel)
redis.call('ZADD', heads, sent_ms(ARGV[first]), channel)
redis.call('ZADD', updated, 'NX', now_ms, channel) -- a channel that was gone is idle after the full time
redis.call('HINCRBY', meta, 'restored', missing)
return { 1 }
