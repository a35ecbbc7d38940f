#!lua flags=allow-oom
-- Give a client what it has not read of a channel, and move its position past that.
-- allow-oom: people go on reading while Redis is full.
--
-- KEYS  log, seen, read, sizes, polled, trimmed, meta   see chat/_keys.py
-- ARGV  channel, client   names
--       token             unique to this call; the same on its repeat
--       limit             messages at most, 0 for all that is stored
--       history           latest messages a new client gets
--       epoch, position, sent_ms   of the caller's cursor; all absent without one
-- Returns {epoch, new 0|1, missed, more 0|1, position, sent_ms of the message there or 0, entry...},
--         entries oldest first as in the log
local log, seen, read, sizes, polled, trimmed, meta = unpack(KEYS)
local channel, client, token = unpack(ARGV, 1, 3)
local limit, history = tonumber(ARGV[4]), tonumber(ARGV[5])
local after_epoch, after, after_ms = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local FORGOTTEN = 1e9 -- a position this far behind is from before `trimmed` was lost, not a slow reader's

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local epoch = redis.call('HGET', meta, 'epoch')
if not epoch then
  epoch = redis.sha1hex(token .. time[1] .. time[2]):sub(1, 12)
  redis.call('HSET', meta, 'epoch', epoch)
end

local state = redis.call('HGET', read, client)
local size = redis.call('LLEN', log)
local base = tonumber(redis.call('HGET', trimmed, channel))
if not base then
  -- As in send.lua: a channel without any trace begins at the floor, any other has lost its `trimmed`.
  local lost = size > 0 or redis.call('EXISTS', seen, read) > 0
  base = lost and now_ms or tonumber(redis.call('HGET', meta, 'floor') or 0)
  redis.call('HSET', trimmed, channel, base)
elseif size == 0 then
  local lost = tonumber(redis.call('ZSCORE', sizes, channel) or 0)
  if lost > 0 then
    base = base + lost -- the log was lost: its messages count as removed
    redis.call('HSET', trimmed, channel, base)
    redis.call('ZADD', sizes, 0, channel)
    redis.call('HINCRBY', meta, 'removed', lost)
  end
end
local last = base + size

-- The time of the message with an id: it tells a message from another one that got its id in another history.
local function sent_ms(id)
  local entry = id > base and redis.call('LINDEX', log, id - base - 1)
  return entry and tonumber(entry:match('^%d+')) or 0
end

-- Where does this client stand? `from` is what it has read, `stop` how far this call may go.
local flag, position, before, last_token = (state or ''):match('^(n?)(%d+) (%d+) (.*)$')
local new, from, stop = false, tonumber(position), last
if last_token == token then -- the reply to this very call was lost: say the same again
  new, from, stop = flag == 'n', tonumber(before), math.min(math.max(from, base), last)
elseif after then
  local known = after_epoch == epoch and after <= last
  if known and after > base and after_ms > 0 then known = after_ms == sent_ms(after) end
  from = known and after or -1
elseif not state then
  new, from = true, last - math.min(history, size)
end
if from < 0 or from > last or base - from > FORGOTTEN then
  new, from, stop = true, base, last -- another history: all that is stored, never "caught up"
end

local missed = math.max(base - from, 0)
local first = from + missed
if limit > 0 then stop = math.min(stop, first + limit) end

if not state then redis.call('HINCRBY', meta, 'clients', 1) end
redis.call('HSET', read, client, string.format('%s%d %d ', new and 'n' or '', stop, from) .. token)
redis.call('ZADD', seen, now_ms, client)
redis.call('ZADD', polled, 'NX', now_ms, channel)

local reply = { epoch, new and 1 or 0, missed, stop < last and 1 or 0, stop, sent_ms(stop) }
if stop > first then
  for _, entry in ipairs(redis.call('LRANGE', log, first - base, stop - base - 1)) do
    reply[#reply + 1] = entry
  end
end
return reply
