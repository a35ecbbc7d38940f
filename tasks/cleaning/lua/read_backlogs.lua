#!lua flags=no-writes
-- Read what trim_backlogs.lua would trim of the named channels, for the archive.
--
-- Needs    errors.lua, sound.lua, over_backlog.lua or too_old.lua, slices.lua
-- KEYS  meta, sizes, heads, trimmed   see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  backlog           messages to keep at most
--       message_timeout   age in ms from which a message is too old
--       name...           of the channels
-- Returns {{of each name: as read_slice in slices.lua...}, {place of a name, error...}}
local meta, sizes, heads, trimmed = unpack(KEYS, 1, 4)
local backlog, message_timeout = tonumber(ARGV[1]), tonumber(ARGV[2])
local names = { unpack(ARGV, 3) }

local function read(log, base)
  local excess = count_excess(log, redis.call('LLEN', log), backlog, message_timeout)
  return read_slice(log, base, excess)
end

local each = {}
for place = 1, #names do each[place] = { -1 } end
attempt_all(#names, function()
  confirm_shard(meta, trimmed, sizes, heads)
  local bases = redis.call('HMGET', trimmed, unpack(names))
  for place = 1, #names do
    each[place] = attempt(place, read, KEYS[4 + place], tonumber(bases[place])) or { -1 }
  end
end)
return { each, errors }
