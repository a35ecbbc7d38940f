#!lua
-- Put messages of an archive back below a channel's log, or begin a channel that is gone with them.
-- Messages that are stored already must be the same, so a repeat finds them and changes nothing.
-- No allow-oom: a full Redis refuses the whole script.
--
-- KEYS  log, updated, sizes, heads, polled, trimmed, meta   see chat/store/keys.py
-- ARGV  channel         name
--       last            id of the last of the messages
--       begin           1: a channel that is gone may begin with them; 0: they only join on to messages
--       foreign         1: they are of another history of ids than the shard's
--       dry             1: change nothing
--       entry...        as in the log, oldest first
-- Returns {1}: they are stored now, or with `dry` would be; or {0}: they do not join on, and nothing was changed
local log, updated, sizes, heads, polled, trimmed, meta = unpack(KEYS)
local channel, last = ARGV[1], tonumber(ARGV[2])
local begin, foreign, dry = ARGV[3] == '1', ARGV[4] == '1', ARGV[5] == '1'
local count = #ARGV - 5

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local base, size = tonumber(redis.call('HGET', trimmed, channel)), redis.call('LLEN', log)
if tonumber(redis.call('ZSCORE', sizes, channel) or 0) ~= size then return { 0 } end -- a key was lost: send or check first
-- What went into an archive is known there, what went without one had an id of at most `unkept`, and no channel that is
-- gone had one above `floor`.
local floor, unkept = unpack(redis.call('HMGET', meta, 'floor', 'unkept'))
local highest = math.min(tonumber(floor or 0), tonumber(unkept or floor or 0))
if not base then -- it is gone: was it ever given an id above `last`?
  local lost = size > 0 or redis.call('ZSCORE', polled, channel) or redis.call('ZSCORE', updated, channel)
  if lost or not begin or last < highest then return { 0 } end
  base = last
end

if last < base then return { 0 } end
local same = math.min(last - base, count) -- so many are above `base`: these must be stored already
local stored = same > 0 and redis.call('LRANGE', log, last - base - same, last - base - 1)
for i = 1, same do
  if stored[i] ~= ARGV[5 + count - same + i] then return { 0 } end
end
local missing = count - same
if missing == 0 then return { 1 } end
if foreign and base - missing < highest then return { 0 } end -- the channel may have given these ids to others
local function sent_ms(entry) return tonumber(entry:match('^%d+')) end
if size > 0 and sent_ms(ARGV[5 + missing]) > sent_ms(redis.call('LINDEX', log, 0)) then return { 0 } end
if dry then return { 1 } end

for i = 5 + missing, 6, -1 do redis.call('LPUSH', log, ARGV[i]) end
redis.call('HSET', trimmed, channel, base - missing)
redis.call('ZINCRBY', sizes, missing, channel)
redis.call('ZADD', heads, sent_ms(ARGV[6]), channel)
redis.call('ZADD', updated, 'NX', now_ms, channel) -- a channel that was gone is idle after the full time
redis.call('HINCRBY', meta, 'restored', missing)
return { 1 }
