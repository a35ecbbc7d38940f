#!lua
-- Append one message to a channel's log and return its id; a repeated token stores nothing.
-- No allow-oom: a full Redis refuses the whole script, so nothing of a refused send is stored.
--
-- Needs    time.lua, begin.lua, message.lua, tokens.lua, windows.lua
-- KEYS  log, updated, sizes, heads, polled, trimmed, meta   see chat/store/keys.py
--       sent:0, sent:1   tokens of recent sends
-- ARGV  channel          name
--       body             the message as JSON
--       token            unique to this call, or the digest of the caller's key
--       digest           of the body, '' without a caller's key
--       hard_backlog     messages stored at most, 0 for no cap
--       dedupe_ms        ms for which the token is to be known, at least
-- Returns {id, sent_ms}; of a token that is known {id, sent_ms, digest}, those of the message that it was used for
local SHRINK = 1000 -- a lowered cap shrinks an old log by this many messages a send, to stay short

local traces = not base and (redis.call('ZSCORE', sizes, channel) or redis.call('ZSCORE', polled, channel))
local sent_ms = now_ms
if redis.call('ZADD', updated, 'GT', 'CH', now_ms, channel) == 0 then -- the server's clock stepped back, or in this ms
  local updated_ms = tonumber(redis.call('ZSCORE', updated, channel))
  sent_ms = credible(updated_ms) -- not before an older message: a log is sorted
  if sent_ms < updated_ms then redis.call('ZADD', updated, sent_ms, channel) end
end
local size = redis.call('RPUSH', log, string.format('%d:', sent_ms) .. body)
local known_size = tonumber(redis.call('ZINCRBY', sizes, '1', channel))
if size == 1 then redis.call('ZADD', heads, sent_ms, channel) end
local removed = base and known_size > size and known_size - size or 0 -- lost with the log
base = base or begin(trimmed, meta, channel, traces or size > 1)
if hard_backlog > 0 and size > hard_backlog then
  local excess = math.min(size - hard_backlog, SHRINK)
  redis.call('LTRIM', log, excess, -1)
  removed, size = removed + excess, size - excess
end
if removed > 0 then
  base = base + removed
  redis.call('HSET', trimmed, channel, base)
  redis.call('HINCRBY', meta, 'removed', removed)
end
if size ~= known_size then redis.call('ZADD', sizes, size, channel) end
redis.call('HINCRBY', meta, 'sent', '1')

local id = base + size
local hash = left >= dedupe_ms and left <= AHEAD_MS and last or turn(last, first[2], second[2], dedupe_ms)
redis.call('HSET', KEYS[hash], token, string.format('%d', id) .. (digest ~= '' and ':' .. digest or ''))
redis.pcall('SPUBLISH', log, '') -- wakes waiting checks; a user that may not publish has stored the message all the same
return { id, sent_ms }
