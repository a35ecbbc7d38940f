#!lua
-- Append one message to a channel's log and return its id; a repeated token stores nothing.
-- No allow-oom: a full Redis refuses the whole script, so nothing of a refused send is stored.
--
-- KEYS  log, updated, sizes, heads, polled, trimmed, meta   see chat/_keys.py
--       sent:0, sent:1   tokens of the even and of the odd dedupe windows
-- ARGV  channel          name
--       body             the message as JSON
--       token            unique to this call, or the digest of the caller's key
--       digest           of the body, '' without a caller's key
--       hard_backlog     messages stored at most, 0 for no cap
--       dedupe_ms        length of a dedupe window, ms
-- Returns {id, sent_ms}, or {0, 0}: the caller's key was used for another body
local log, updated, sizes, heads, polled, trimmed, meta = unpack(KEYS, 1, 7)
local channel, body, token, digest = unpack(ARGV, 1, 4)
local hard_backlog, dedupe_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
local SHRINK = 1000 -- a lowered cap shrinks an old log by this many messages a send, to stay short

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- Two windows alternate between two keys: each lives for its own window and the next one,
-- so a token is known for one to two windows, and a key is gone when its turn comes again.
local window = math.floor(now_ms / dedupe_ms)
local sent, sent_before = KEYS[8 + window % 2], KEYS[9 - window % 2]

local known = redis.call('HGET', sent, token) or redis.call('HGET', sent_before, token)
if known then
  local id, stored_digest = known:match('^(%d+):?(.*)$')
  if stored_digest ~= digest then return { 0, 0 } end
  local index = id - (redis.call('HGET', trimmed, channel) or 0) - 1
  local entry = index >= 0 and redis.call('LINDEX', log, index)
  return { tonumber(id), entry and tonumber(entry:match('^%d+')) or now_ms }
end

-- A server clock that steps back does not unsort a log: a message is never stamped before its elder.
local sent_ms = now_ms
if redis.call('ZADD', updated, 'GT', 'CH', now_ms, channel) == 0 then
  sent_ms = tonumber(redis.call('ZSCORE', updated, channel))
end

local size = redis.call('RPUSH', log, string.format('%d:', sent_ms) .. body)
local known_size = tonumber(redis.call('ZINCRBY', sizes, 1, channel))
local base = tonumber(redis.call('HGET', trimmed, channel))

if size == 1 then redis.call('ZADD', heads, sent_ms, channel) end
if not base then
  -- The channel begins above every id of the shard's removed channels. Where it left other traces,
  -- `trimmed` itself was lost: go on above every id it can have had (one a millisecond since 1970).
  local lost = known_size > 1 or size > 1 or redis.call('ZSCORE', polled, channel)
  base = lost and now_ms or tonumber(redis.call('HGET', meta, 'floor') or 0)
  redis.call('HSET', trimmed, channel, base)
elseif known_size > size then
  base = base + known_size - size -- the log was lost: its messages count as removed
  redis.call('HSET', trimmed, channel, base)
  redis.call('HINCRBY', meta, 'removed', known_size - size)
end

local excess = hard_backlog > 0 and math.min(size - hard_backlog, SHRINK) or 0
if excess > 0 then
  redis.call('LTRIM', log, excess, -1)
  base, size = base + excess, size - excess
  redis.call('HSET', trimmed, channel, base)
  redis.call('HINCRBY', meta, 'removed', excess)
end
if size ~= known_size then redis.call('ZADD', sizes, size, channel) end

redis.call('HINCRBY', meta, 'sent', 1)

local id = base + size
redis.call('HSET', sent, token, string.format('%d', id) .. (digest ~= '' and ':' .. digest or ''))
if redis.call('HLEN', sent) == 1 then redis.call('PEXPIREAT', sent, (window + 2) * dedupe_ms) end
redis.pcall('SPUBLISH', log, '') -- wakes who waits; a user that may not publish has stored the message all the same
return { id, sent_ms }
