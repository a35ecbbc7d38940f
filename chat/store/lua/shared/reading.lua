-- The check of one channel.
--
-- Needs    time.lua, request.lua, mend_ids.lua, mend_index.lua, entries.lua, position.lua
-- Defines  check(refusal, log, seen, read, channel, cursor)   its reply; `refusal`, if there is one, where the client
--                                                             has no position: nothing is written there

local function check(refusal, log, seen, read, channel, cursor)
  local state = redis.call('HGET', read, client)
  if refusal and not state then return refusal end
  if not epoch then
    epoch = redis.sha1hex(token .. time[1] .. time[2]):sub(1, 12)
    redis.call('HSET', meta, 'epoch', epoch)
  end
  local size = redis.call('LLEN', log)
  local base = tonumber(redis.call('HGET', trimmed, channel))
  local lost = base and size == 0 and tonumber(redis.call('ZSCORE', sizes, channel)) or 0
  if not base or lost > 0 then base = mend_ids(log, seen, read, channel, base, size, lost) end
  if size > 0 and not redis.call('ZSCORE', watched, channel) then mend_index(log, channel, size) end
  local last = base + size

  local new, from, stop, position = locate(state, cursor, log, base, size)
  local missed = base > from and base - from or 0
  local first = from + missed
  if limit > 0 then stop = math.min(stop, first + limit) end
  local reply = { epoch, new and 1 or 0, missed, 0, 0, 0 }
  local given = add_entries(reply, log, first - base, stop - base)
  if given > 0 then stop = first + given end

  if not state then redis.call('HINCRBY', meta, 'clients', 1) end
  if stop ~= position then
    redis.call('HSET', read, client, string.format('%s%d %d ', new and 'n' or '', stop, from) .. token)
  end -- else it stands where it stood, and a repeat of this call may as well look again
  redis.call('ZADD', seen, now_ms, client)

  local newest_ms = given > 0 and tonumber(reply[#reply]:match('^%d+') or 0) or sent_ms_at(log, stop - base - 1)
  reply[4], reply[5], reply[6] = stop < last and 1 or 0, stop, newest_ms
  return reply
end
