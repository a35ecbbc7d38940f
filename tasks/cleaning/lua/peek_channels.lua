#!lua flags=no-writes
-- Count the messages of those of the named channels that are idle: what remove_channels.lua would remove.
--
-- KEYS  updated           see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  channel_timeout   ms without a message
--       name...           of the channels
-- Returns {{channels, messages}, {messages of each name...}, {place of a name, error...}}
local updated, timeout = KEYS[1], tonumber(ARGV[1])
local names, logs = { unpack(ARGV, 2) }, { unpack(KEYS, 2) }

local channels, messages, each = 0, 0, {}
attempt_all(#names, function()
  local sizes = idle_sizes(updated, names, logs, timeout)
  for place = 1, #names do
    each[place] = sizes[place] or 0
    channels, messages = channels + (sizes[place] and 1 or 0), messages + each[place]
  end
end)
return { { channels, messages }, each, errors }
