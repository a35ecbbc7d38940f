-- The check of each channel of a call.
--
-- Needs    time.lua, request.lua, mending.lua, entries.lua, position.lua
-- Defines  check_all(refusal)   the reply of check.lua, with `refusal`, where there is one, for each channel in which the
--                               client has no position; nothing is written there

local function check(refusal, log, seen, read, channel, cursor)
  local state = redis.call('HGET', read, client)
  if refusal and not state then return refusal end
  if not epoch then
    epoch = redis.sha1hex(token .. time[1] .. time[2]):sub(1, 12)
    redis.call('HSET', meta, 'epoch', epoch)
  end
  local base, size = bounds(log, seen, read, channel)
  local last = base + size
  if size > 0 then mend_index(log, channel, size) end

  local new, from, stop, position = locate(state, cursor, log, base, size)
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

  local newest_ms = given > 0 and tonumber(reply[#reply]:match('^%d+') or 0) or sent_ms_at(log, stop - base - 1)
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
    -- start at another channel each call, because the first one may use the whole 1 MB
    local i = (token:byte() + turn) % count + 1
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
