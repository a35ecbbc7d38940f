#!lua
-- Put messages of an archive back below a channel's log, or begin a channel that is gone with them.
-- No allow-oom: a full Redis refuses the whole script.
--
-- Needs    stored.lua, time.lua, joining.lua
-- KEYS  log, updated, sizes, heads, polled, trimmed, meta   see chat/store/keys.py
-- ARGV  channel         name
--       last            id of the last of the messages
--       epoch           of their ids, '' where that is not the shard's
--       floor           of the shard, before the archive was read
--       entry...        as in the log, oldest first
-- Returns {1}: they are stored now; {0}: they do not follow on what is stored, and nothing was changed
for i = missing, 1, -1 do redis.call('LPUSH', log, entries[i]) end
redis.call('HSET', trimmed, channel, base - missing)
redis.call('ZINCRBY', sizes, missing, channel)
redis.call('ZADD', heads, sent_ms(entries[1]), channel)
redis.call('ZADD', updated, 'NX', now_ms, channel) -- a channel that was gone is idle after the full time
redis.call('HINCRBY', meta, 'restored', missing)
return { 1 }
