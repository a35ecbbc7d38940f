#!lua flags=no-writes
-- Count the messages of those of the named channels that are idle: what remove_channels.lua would remove.
--
-- Needs    errors.lua, sound.lua, idle.lua
-- KEYS  meta, updated, sizes, heads, polled, trimmed   see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  channel_timeout   ms without a message
--       name...           of the channels
-- Returns {{channels, messages}, {messages of each name...}, {place of a name, error...}}
local meta, updated, sizes, heads, polled, trimmed = unpack(KEYS, 1, 6)
local timeout, names, logs = tonumber(ARGV[1]), { unpack(ARGV, 2) }, { unpack(KEYS, 7) }

local channels, messages, each = 0, 0, {}
attempt_all(#names, function()
  confirm_shard(meta, trimmed, sizes, heads, polled)
  local idle = idle_sizes(updated, names, logs, timeout)
  for place = 1, #names do
    each[place] = idle[place] or 0
    channels, messages = channels + (idle[place] and 1 or 0), messages + each[place]
  end
end)
return { { channels, messages }, each, errors }
