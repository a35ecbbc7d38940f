#!lua flags=no-writes
-- Count the clients of the named channels that stopped checking: those that forget_clients.lua would forget.
--
-- KEYS  seen              of each channel, in the order of the names
-- ARGV  client_timeout    ms without a check
--       name...           of the channels
-- Returns {{clients}, {clients of each name...}, {place of a name, error...}}
local timeout = tonumber(ARGV[1])

local clients, each = 0, {}
for place, seen in ipairs(KEYS) do
  each[place] = attempt(place, redis.call, 'ZCOUNT', seen, '-inf', now_ms - timeout) or 0
  clients = clients + each[place]
end
return { { clients }, each, errors }
