-- How a client reads on in some channels of a shard: what check.lua and check_known.lua share, put in front of them.
-- KEYS, ARGV and replies are those of check.lua.
local updated, sizes, heads, polled, trimmed, meta = unpack(KEYS, 1, 6)
local client, token = unpack(ARGV, 1, 2)
local limit, history, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local room = 1e6 -- bytes of entries that this call still gives
local EACH = 100 -- bytes that take as long as an entry does beside its text
local STEP = 16 -- entries read at a time, as other senders may be allowed longer ones
local FORGOTTEN = 1e9 -- a position this far behind is from before `trimmed` was lost, not a slow reader's

local epoch = redis.call('HGET', meta, 'epoch')

-- The time of the message at an index: it tells a message from another one that got its id in another history.
local function sent_ms(log, index)
  local entry = index >= 0 and redis.call('LINDEX', log, index)
  return entry and tonumber(entry:match('^%d+')) or 0
end

-- The id before the log's first message, and the length of the log; what was lost of the channel is mended.
local function bounds(log, seen, read, channel)
  local size = redis.call('LLEN', log)
  local base = tonumber(redis.call('HGET', trimmed, channel))
  if not base then
    local traces = size > 0 or redis.call('EXISTS', seen, read) > 0 or redis.call('ZSCORE', updated, channel)
    base = begin(trimmed, meta, channel, traces)
  elseif size == 0 then
    local lost = tonumber(redis.call('ZSCORE', sizes, channel) or 0)
    if lost > 0 then
      base = count_lost(trimmed, meta, channel, base, lost)
      redis.call('ZADD', sizes, 0, channel)
      note_unkept(meta, base)
    end
  end
  return base, size
end

-- Look whether an index has lost a channel that has messages, and put it back; a sweep would never see it. One index a
-- call, by the token, as each look costs as much as another command of a check. `polled` is put right by every check.
local function mend(log, channel, size)
  local look = token:byte(2) % 3
  local index = look == 0 and updated or look == 1 and sizes or heads
  if redis.call('ZSCORE', index, channel) then return end
  local score = size
  if look ~= 1 then
    score = sent_ms(log, look == 0 and size - 1 or 0)
    if score == 0 or score > now_ms then score = now_ms end -- an entry that is none of ours makes no channel due
  end
  redis.call('ZADD', index, score, channel)
end

-- Add the entries from one index to before another to a reply, or the first of them: as many at a time as surely fit in.
local function add_entries(reply, log, from, to)
  local begin = from
  while from < to and (room > 0 or from == begin) do
    local fitting = math.max(1, math.min(STEP, math.floor(room / longest)))
    for _, entry in ipairs(redis.call('LRANGE', log, from, math.min(from + fitting, to) - 1)) do
      reply[#reply + 1] = entry
      from, room = from + 1, room - #entry - EACH
    end
  end
  return from - begin
end

-- Check one channel; who has no position there gets the refusal, if there is one, and nothing is written.
local function check(refusal, log, seen, read, channel, cursor)
  local state = redis.call('HGET', read, client)
  if refusal and not state then return refusal end
  if not epoch then
    epoch = redis.sha1hex(token .. time[1] .. time[2]):sub(1, 12)
    redis.call('HSET', meta, 'epoch', epoch)
  end
  local base, size = bounds(log, seen, read, channel)
  local last = base + size
  if size > 0 then mend(log, channel, size) end

  -- Where does this client stand? `from` is what it has read, `stop` how far this call may go.
  local flag, position, before, last_token = (state or ''):match('^(n?)(%d+) (%d+) (.*)$')
  local new, from, stop = false, tonumber(position), last
  if last_token == token then -- the reply to this very call was lost: say the same again
    new, from, stop = flag == 'n', tonumber(before), math.min(math.max(from, base), last)
  elseif cursor ~= '' and not (state and cursor:byte() == 63) then -- 63 is "?"
    local of_epoch, after, after_ms = cursor:match('^%??(%x*) (%d+) (%d+)$')
    after, after_ms = tonumber(after), tonumber(after_ms)
    local known = of_epoch == epoch and after <= last
    if known and after > base and after_ms > 0 then known = after_ms == sent_ms(log, after - base - 1) end
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
  local reply = { epoch, new and 1 or 0, missed, 0, 0, 0 }
  local given = add_entries(reply, log, first - base, stop - base)
  if given > 0 then stop = first + given end

  if not state then redis.call('HINCRBY', meta, 'clients', 1) end
  if stop ~= tonumber(position) then
    redis.call('HSET', read, client, string.format('%s%d %d ', new and 'n' or '', stop, from) .. token)
  end -- else it stands where it stood, and a repeat of this call may as well look again
  redis.call('ZADD', seen, now_ms, client)

  local newest_ms = given > 0 and tonumber(reply[#reply]:match('^%d+') or 0) or sent_ms(log, stop - base - 1)
  reply[4], reply[5], reply[6] = stop < last and 1 or 0, stop, newest_ms
  return reply
end

local function check_all(refusal)
  local count = (#KEYS - 6) / 3
  if count == 1 then
    local reply = check(refusal, KEYS[7], KEYS[8], KEYS[9], ARGV[6], ARGV[7])
    if reply ~= refusal then redis.call('ZADD', polled, 'NX', now_ms, ARGV[6]) end
    return { reply }
  end

  local replies, polls = {}, {}
  for turn = 1, count do
    local i = (token:byte() + turn) % count + 1 -- the channel that comes first, and has all the room, is another each time
    local log, seen, read = unpack(KEYS, 3 * i + 4, 3 * i + 6)
    local channel, cursor = unpack(ARGV, 2 * i + 4, 2 * i + 5)
    local done, reply = pcall(check, refusal, log, seen, read, channel, cursor)
    replies[i] = (done or type(reply) == 'table') and reply or { err = 'ERR ' .. reply }
    if replies[i] ~= refusal then
      polls[#polls + 1] = now_ms
      polls[#polls + 1] = channel
    end
  end
  if #polls > 0 then redis.call('ZADD', polled, 'NX', unpack(polls)) end
  return replies
end
