#!lua flags=no-writes
-- Count what trim_backlogs.lua would trim of the named channels, without what another rule trims anyway.
--
-- Needs    errors.lua, sound.lua, over_backlog.lua or too_old.lua
-- KEYS  meta, sizes, heads, trimmed   see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  backlog           messages to keep at most
--       message_timeout   age in ms from which a message is too old
--       name...           of the channels
-- Returns {{messages}, {messages of each name...}, {place of a name, error...}}
local meta, sizes, heads, trimmed = unpack(KEYS, 1, 4)
local backlog, message_timeout, channels = tonumber(ARGV[1]), tonumber(ARGV[2]), #ARGV - 2

local function count(log)
  local excess, others = count_excess(log, redis.call('LLEN', log), backlog, message_timeout)
  return excess - others
end

local messages, each = 0, {}
attempt_all(channels, function()
  confirm_shard(meta, trimmed, sizes, heads)
  for place = 1, channels do
    each[place] = attempt(place, count, KEYS[4 + place]) or 0
    messages = messages + each[place]
  end
end)
return { { messages }, each, errors }
