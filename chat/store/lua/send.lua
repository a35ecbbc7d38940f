#!lua
-- Append one message to a channel's log and return its id; a repeated token stores nothing.
-- No allow-oom: a full Redis refuses the whole script, so nothing of a refused send is stored.
--
-- KEYS  log, updated, sizes, heads, polled, trimmed, meta   see chat/store/keys.py
--       sent:0, sent:1   tokens of recent sends
-- ARGV  channel          name
--       body             the message as JSON
--       token            unique to this call, or the digest of the caller's key
--       digest           of the body, '' without a caller's key
--       hard_backlog     messages stored at most, 0 for no cap
--       dedupe_ms        ms for which the token is to be known, at least
-- Returns {id, sent_ms}; of a token that is known {id, sent_ms, digest}, those of the message that it was used for
local log, updated, sizes, heads, polled, trimmed, meta = unpack(KEYS, 1, 7)
local channel, body, token, digest = unpack(ARGV, 1, 4)
local hard_backlog, dedupe_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
local LONGEST = 2 * 86400e3 -- ms; two of the longest dedupe windows that are allowed
local SHRINK = 1000 -- a lowered cap shrinks an old log by this many messages a send, to stay short

-- Tokens go into two hashes in turn; the field `window` of a hash is "<ms when it ends> <ms that it lives>".
local first = redis.call('HMGET', KEYS[8], token, 'window')
local second = redis.call('HMGET', KEYS[9], token, 'window')
local known = first[1] or second[1]
if known then
  local id, stored_digest = known:match('^(%d+):?(.*)$')
  local index = id - (redis.call('HGET', trimmed, channel) or 0) - 1
  local entry = index >= 0 and redis.call('LINDEX', log, index)
  return { tonumber(id), entry and tonumber(entry:match('^%d+')) or now_ms, stored_digest }
end

-- A server clock that steps back does not unsort a log: a message is never stamped before its elder.
local sent_ms = now_ms
if redis.call('ZADD', updated, 'GT', 'CH', now_ms, channel) == 0 then
  sent_ms = tonumber(redis.call('ZSCORE', updated, channel))
  if sent_ms > now_ms + AHEAD_MS then
    sent_ms = now_ms
    redis.call('ZADD', updated, now_ms, channel)
  end
end

local base = tonumber(redis.call('HGET', trimmed, channel))
local traces = not base and (redis.call('ZSCORE', sizes, channel) or redis.call('ZSCORE', polled, channel))
local size = redis.call('RPUSH', log, string.format('%d:', sent_ms) .. body)
local known_size = tonumber(redis.call('ZINCRBY', sizes, 1, channel))

if size == 1 then redis.call('ZADD', heads, sent_ms, channel) end
if not base then
  base = begin(trimmed, meta, channel, traces or size > 1)
elseif known_size > size then
  base = count_lost(trimmed, meta, channel, base, known_size - size)
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

-- The new token goes into the hash that was opened last, which is the one that ends last, if it lives for `dedupe_ms`
-- more. If it does not, the other one is opened, once it has ended; until then the last one is prolonged. So a token is
-- known for as long as its sender asked, whatever other senders ask. A hash is never prolonged after the other one was
-- opened, so it does end. With the same `dedupe_ms` everywhere each takes tokens for one window, and lives for one more.
local ends = { [8] = tonumber((first[2] or '0'):match('^%d+')), [9] = tonumber((second[2] or '0'):match('^%d+')) }
local last = ends[9] > ends[8] and 9 or 8
if ends[last] - now_ms < dedupe_ms or ends[last] - now_ms > AHEAD_MS then
  local function set_end(i, moment, lives)
    ends[i] = moment
    redis.call('HSET', KEYS[i], 'window', string.format('%d %d', moment, lives))
    redis.call('PEXPIREAT', KEYS[i], moment)
  end

  for i, found in pairs({ [8] = first[2], [9] = second[2] }) do
    local lives = tonumber((found or '0 0'):match('%d+$'))
    if ends[i] - lives > now_ms + AHEAD_MS then set_end(i, now_ms + math.max(lives, dedupe_ms), lives) end
  end
  local window = math.floor(now_ms / dedupe_ms)
  local other = ends[last] > now_ms and 17 - last or 8 + window % 2
  local enough = ends[last] - now_ms >= dedupe_ms
  if not enough and ends[other] > now_ms then
    set_end(last, ends[other] + dedupe_ms, ends[other] + dedupe_ms - now_ms)
  elseif not enough then
    -- A hash without `window` was filled by an earlier version of this script: its tokens live on.
    local left = math.min(redis.call('PTTL', KEYS[other]), LONGEST)
    local moment = math.max((window + 2) * dedupe_ms, now_ms + left)
    set_end(other, moment, moment - now_ms)
    last = other
  end
end

local id = base + size
redis.call('HSET', KEYS[last], token, string.format('%d', id) .. (digest ~= '' and ':' .. digest or ''))
redis.pcall('SPUBLISH', log, '') -- wakes who waits; a user that may not publish has stored the message all the same
return { id, sent_ms }
