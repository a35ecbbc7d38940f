#!lua flags=no-writes
-- Read the messages of those of the named channels that are idle, for the archive.
--
-- KEYS  updated, trimmed  see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  channel_timeout   ms without a message
--       name...           of the channels
-- Returns {{of each name: as read_slice in slices.lua; {-1} also where it is not idle...}, {place of a name, error...}}
local updated, trimmed, timeout = KEYS[1], KEYS[2], tonumber(ARGV[1])
local names, logs = { unpack(ARGV, 2) }, { unpack(KEYS, 3) }

local each = {}
for place = 1, #names do each[place] = { -1 } end
attempt_all(#names, function()
  local bases = redis.call('HMGET', trimmed, unpack(names))
  local sizes = idle_sizes(updated, names, logs, timeout)
  for place = 1, #names do
    if sizes[place] then each[place] = read_slice(logs[place], tonumber(bases[place]), sizes[place]) end
  end
end)
return { each, errors }
