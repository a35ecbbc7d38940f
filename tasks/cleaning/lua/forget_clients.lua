#!lua flags=allow-oom
-- Forget the clients of the named channels that stopped checking: a check that came in between stays.
-- With its last client goes what was left of a channel that had been removed.
--
-- KEYS  lease, meta       of this sweep in this shard; of the shard
--       updated, polled, trimmed   see chat/store/keys.py
--       log, seen, read   of each channel, in the order of the names
-- ARGV  owner, lease_ms   see lease.lua
--       client_timeout    ms without a check
--       budget            clients to forget at most in this call; the rest stays due
--       name...           of the channels
-- Returns {{clients} forgotten, {names of the clients of each name...}, {place of a name, error...}};
--         {} without the lease
local meta, updated, polled, trimmed = unpack(KEYS, 2, 5)
local timeout, budget = tonumber(ARGV[3]), tonumber(ARGV[4])
local names = { unpack(ARGV, 5) }

local clients, orphans, each = 0, 0, {}
local oldest, deserted, unlinked = {}, {}, {}

-- Some clients go; return their names.
local function forget(channel, seen, read, gone, oldest_ms)
  if #gone > 0 then
    clients = clients + redis.call('HDEL', read, unpack(gone))
    redis.call('ZREM', seen, unpack(gone))
  end
  oldest[#oldest + 1] = oldest_ms
  oldest[#oldest + 1] = channel
end

-- All clients go, also those whose `seen` was lost.
local function desert(channel, seen, read, gone, positions)
  local known = #gone > 0 and redis.call('HDEL', read, unpack(gone)) or 0
  clients, orphans = clients + known, orphans + positions - known
  deserted[#deserted + 1] = channel
  unlinked[#unlinked + 1] = seen
  unlinked[#unlinked + 1] = read
end

local function clean(place, updated_ms, polled_ms, last, damage)
  local channel, log, seen, read = names[place], unpack(KEYS, 3 * place + 3, 3 * place + 5)
  local gone, oldest_ms = expired(seen, timeout, budget - clients)
  if oldest_ms then
    forget(channel, seen, read, gone, oldest_ms)
    return gone
  end
  local positions = redis.call('HLEN', read)
  if not updated_ms and redis.call('EXISTS', log) == 0 then -- the channel itself went before its last client
    if damage then error(damage, 0) end
    fold(channel, last_id(last, positions > 0 or #gone > 0 or polled_ms, floor))
  end
  desert(channel, seen, read, gone, positions)
  return gone
end

-- What an index has of all names; or nothing and the error, which concerns only the channels that need it.
local function ask(command, key)
  local done, reply = pcall(redis.call, command, key, unpack(names))
  return done and reply or {}, not done and reply
end

local done = attempt_all(#names, function()
  confirm_numbers(meta, 'clients', 'floor')
  local polled_ms = redis.call('ZMSCORE', polled, unpack(names))
  local updated_ms, updated_error = ask('ZMSCORE', updated)
  local bases, trimmed_error = ask('HMGET', trimmed)
  for place = 1, #names do
    if clients >= budget then break end
    each[place] = attempt(
      place, clean, place, updated_ms[place], polled_ms[place], tonumber(bases[place]), updated_error or trimmed_error
    ) or {}
  end
end)
if not done then return { { 0 }, {}, errors } end

if #oldest > 0 then redis.call('ZADD', polled, unpack(oldest)) end
if #deserted > 0 then
  redis.call('ZREM', polled, unpack(deserted))
  redis.call('UNLINK', unpack(unlinked))
end
write_floor(trimmed)
count_forgotten(meta, polled, clients + orphans)
return { { clients }, each, errors }
