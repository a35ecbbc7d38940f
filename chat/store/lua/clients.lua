#!lua flags=no-writes
-- Name a page of the clients that are connected to a channel, in no order.
--
-- KEYS  seen, read       of the channel
-- ARGV  cursor           '0' to begin, else what the page before returned
--       count            clients a page, roughly
-- Returns {cursor, name, checked_ms, position...}; the cursor is '0' on the last page
--         A client that is connected all the while is on some page, rarely on two.
local seen, read = KEYS[1], KEYS[2]
local cursor, count = ARGV[1], ARGV[2]

local page = redis.call('ZSCAN', seen, cursor, 'COUNT', count)
local reply = { page[1] }
for i = 1, #page[2], 2 do
  local name = page[2][i]
  local state = redis.call('HGET', read, name)
  if state then
    reply[#reply + 1] = name
    reply[#reply + 1] = page[2][i + 1]
    reply[#reply + 1] = state:match('%d+')
  end
end
return reply
