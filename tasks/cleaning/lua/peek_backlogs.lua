#!lua flags=no-writes
-- Count what trim_backlogs.lua would remove of the named channels, without what another rule removes anyway.
-- In front stands over_backlog.lua or too_old.lua.
--
-- KEYS  log               of each channel, in the order of the names
-- ARGV  backlog           messages to keep at most
--       message_timeout   age in ms from which a message is too old
--       name...           of the channels
-- Returns {{messages}, {messages of each name...}, {place of a name, error...}}
local backlog, message_timeout = tonumber(ARGV[1]), tonumber(ARGV[2])

local function count(log)
  local excess, others = count_excess(log, redis.call('LLEN', log), backlog, message_timeout)
  return excess - others
end

local messages, each = 0, {}
for place, log in ipairs(KEYS) do
  each[place] = attempt(place, count, log) or 0
  messages = messages + each[place]
end
return { { messages }, each, errors }
