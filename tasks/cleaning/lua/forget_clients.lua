#!lua flags=allow-oom
-- Forget the clients of the named channels that stopped checking: a check that came in between stays.
-- With its last client goes what was left of a channel that had been removed.
--
-- Needs    lease.lua, errors.lua, numbers.lua, expired.lua, floor.lua, last_client.lua, forgetting.lua
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
local timeout, budget, names = tonumber(ARGV[3]), tonumber(ARGV[4]), { unpack(ARGV, 5) }

local function clean(channel, log, seen, read, updated_ms, polled_ms, base, damage)
  local gone, oldest_ms = expired(seen, timeout, budget - forgotten)
  if oldest_ms then
    forget_some(channel, seen, read, gone, oldest_ms)
    return gone
  end
  local positions = redis.call('HLEN', read)
  if not updated_ms and redis.call('EXISTS', log) == 0 then -- the channel itself went before its last client
    if damage then error(damage, 0) end
    fold(channel, last_id(base, positions > 0 or #gone > 0 or polled_ms, floor))
  end
  forget_all(channel, seen, read, gone, positions)
  return gone
end

local each = {}
local done = attempt_all(#names, function()
  confirm_numbers(meta, 'clients', 'floor')
  local polled_ms = redis.call('ZMSCORE', polled, unpack(names))
  local updated_ms, updated_error = of_all(names, 'ZMSCORE', updated)
  local bases, trimmed_error = of_all(names, 'HMGET', trimmed)
  for i, channel in ipairs(names) do
    if forgotten >= budget then break end
    local log, seen, read = unpack(KEYS, 3 * i + 3, 3 * i + 5)
    local base, damage = tonumber(bases[i]), updated_error or trimmed_error
    each[i] = attempt(i, clean, channel, log, seen, read, updated_ms[i], polled_ms[i], base, damage) or {}
  end
end)
if not done then return { { 0 }, {}, errors } end

write_floor(trimmed)
write_forgotten(meta, polled)
return { { forgotten }, each, errors }
