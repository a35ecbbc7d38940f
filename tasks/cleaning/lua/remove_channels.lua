#!lua flags=allow-oom
-- Remove those of the named channels that are idle, several a command.
--
-- Needs    lease.lua, errors.lua, sound.lua, idle.lua, ids.lua, account.lua, trims.lua, floor.lua, removals.lua
-- KEYS  lease, meta       of this sweep in this shard; of the shard
--       updated, sizes, heads, polled, trimmed   see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  owner, lease_ms   see lease.lua
--       channel_timeout   ms without a message
--       name...           of the channels
--       id...             with an archive: of the last message handed over of each; no more goes
-- Returns {{channels, messages} removed, {of each name 1 or 0...}, {place of a name, error...}}; {} without the lease
local meta, updated, sizes, heads, polled, trimmed = unpack(KEYS, 2, 7)
local timeout, logs = tonumber(ARGV[3]), { unpack(KEYS, 8) }
local names, ids = { unpack(ARGV, 4, 3 + #logs) }, { unpack(ARGV, 4 + #logs) }

local function clean(channel, log, handed, size, known_base, known_size, connected)
  local base, stored = known_base or above_all(floor), math.max(size, known_size or 0)
  if handed and size > 0 and handed < base + size then -- more is stored than was handed over: the rest stays due
    local count = math.max(handed - base, 0)
    trim(channel, log, base, size, count)
    set_size(channel, stored - count) -- what was lost of the log is still counted: its ids were given
    return 0
  end
  local traceless = size == 0 and not known_size -- log and size were lost
  local last = (traceless and above_all(base) or base) + stored
  if last > unkept and (traceless or stored > (handed and size or 0)) then unkept = last end
  remove(channel, log, last, connected)
  messages, lost = messages + size, lost + stored - size
  return 1
end

local each = {}
local done = attempt_all(#names, function()
  confirm_shard(meta, trimmed, sizes, heads, polled)
  local idle = idle_sizes(updated, names, logs, timeout)
  local bases, known_sizes = redis.call('HMGET', trimmed, unpack(names)), redis.call('ZMSCORE', sizes, unpack(names))
  local connected = redis.call('ZMSCORE', polled, unpack(names))
  for i, channel in ipairs(names) do
    local base, known_size = tonumber(bases[i]), tonumber(known_sizes[i])
    each[i] = idle[i] and clean(channel, logs[i], tonumber(ids[i]), idle[i], base, known_size, connected[i]) or 0
  end
  write_trims(heads, trimmed, sizes)
end)
if not done then return { { 0, 0 }, {}, errors } end

write_floor(trimmed)
write_account(meta)
write_removals(meta, updated, sizes)
return { { #removed, messages }, each, errors }
