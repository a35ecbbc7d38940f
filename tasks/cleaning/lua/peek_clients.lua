#!lua flags=no-writes
-- Count the clients of the named channels that stopped checking: those that forget_clients.lua would forget.
--
-- Needs    time.lua, errors.lua, numbers.lua
-- KEYS  meta, updated, polled, trimmed   see chat/store/keys.py
--       log, seen, read   of each channel, in the order of the names
-- ARGV  client_timeout    ms without a check
--       name...           of the channels
-- Returns {{clients}, {clients of each name...}, {place of a name, error...}}
local meta, updated, _, trimmed = unpack(KEYS, 1, 4)
local timeout, names = tonumber(ARGV[1]), { unpack(ARGV, 2) }

-- Read all that the removal needs, as it would refuse the channel where something of that is damaged.
local function count(place)
  local log, seen, read = unpack(KEYS, 3 * place + 2, 3 * place + 4)
  local gone = redis.call('ZCOUNT', seen, '-inf', now_ms - timeout)
  local all = gone == redis.call('ZCARD', seen)
  redis.call('HLEN', read)
  if all and redis.call('EXISTS', log) == 0 and not redis.call('ZSCORE', updated, names[place]) then
    redis.call('HLEN', trimmed)
  end
  return gone
end

local clients, each = 0, {}
attempt_all(#names, function()
  confirm_numbers(meta, 'clients', 'floor')
  for place = 1, #names do
    each[place] = attempt(place, count, place) or 0
    clients = clients + each[place]
  end
end)
return { { clients }, each, errors }
