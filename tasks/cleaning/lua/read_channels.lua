#!lua flags=no-writes
-- Read the messages of those of the named channels that are idle, for the archive.
--
-- Needs    errors.lua, sound.lua, idle.lua, slices.lua
-- KEYS  meta, updated, sizes, heads, polled, trimmed   see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  channel_timeout   ms without a message
--       name...           of the channels
-- Returns {{of each name: as read_slice in slices.lua; {-1} also where it is not idle...}, {place of a name, error...}}
local meta, updated, sizes, heads, polled, trimmed = unpack(KEYS, 1, 6)
local timeout, names, logs = tonumber(ARGV[1]), { unpack(ARGV, 2) }, { unpack(KEYS, 7) }

local each = {}
for place = 1, #names do each[place] = { -1 } end
attempt_all(#names, function()
  confirm_shard(meta, trimmed, sizes, heads, polled)
  local bases = redis.call('HMGET', trimmed, unpack(names))
  local idle = idle_sizes(updated, names, logs, timeout)
  for place = 1, #names do
    if idle[place] then each[place] = read_slice(logs[place], tonumber(bases[place]), idle[place]) end
  end
end)
return { each, errors }
