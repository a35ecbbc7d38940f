#!lua flags=allow-oom
-- Remove those of the named channels that are idle, several a command.
--
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
local names = { unpack(ARGV, 4, 3 + #logs) }

local messages, removed, each = 0, 0, {}
local gone, unlinked = {}, {}

local function plan(place, size, known_base, known_size, connected)
  local channel, handed = names[place], tonumber(ARGV[3 + #logs + place])
  local base, stored = known_base or above_all(floor), math.max(size, known_size or 0)
  if handed and handed < base + size then -- more is stored than was handed over: the rest stays due
    local drop = math.max(handed - base, 0)
    if drop > 0 then
      plan_drop(channel, logs[place], base, size, drop)
      set_size(channel, stored - drop) -- what was lost of the log is still counted: its ids were given
    end
    if not known_base then set_base(channel, base) end
    messages, removed = messages + drop, removed + drop
    return
  end
  local traceless = size == 0 and not known_size
  if traceless then base = above_all(base) end -- log and size were lost
  if traceless or stored > (handed and size or 0) then unkept = math.max(unkept, base + stored) end
  if connected then
    set_base(channel, base + stored) -- its clients go on with the next id
  else
    fold(channel, base + stored)
  end
  gone[#gone + 1], headless[#headless + 1], unlinked[#unlinked + 1] = channel, channel, logs[place]
  messages, removed, each[place] = messages + size, removed + stored, 1
end

local done = attempt_all(#names, function()
  confirm_shard(meta, trimmed, sizes, heads, polled)
  local idle = idle_sizes(updated, names, logs, timeout)
  local bases, known_sizes = redis.call('HMGET', trimmed, unpack(names)), redis.call('ZMSCORE', sizes, unpack(names))
  local connected = redis.call('ZMSCORE', polled, unpack(names))
  for place = 1, #names do
    each[place] = 0
    if idle[place] then
      plan(place, idle[place], tonumber(bases[place]), tonumber(known_sizes[place]), connected[place])
    end
  end
  write_drops(heads, trimmed, sizes)
end)
if not done then return { { 0, 0 }, {}, errors } end

write_floor(trimmed)
if removed > 0 then redis.call('HINCRBY', meta, 'removed', removed) end
if #gone > 0 then
  redis.call('ZREM', updated, unpack(gone))
  redis.call('ZREM', sizes, unpack(gone))
  redis.call('UNLINK', unpack(unlinked))
  redis.call('HSET', meta, 'unkept', unkept)
  if redis.call('EXISTS', sizes) == 0 then -- an empty shard: the account is right again
    local account = redis.call('HMGET', meta, 'removed', 'restored', 'sent')
    for i = 1, 3 do account[i] = tonumber(account[i] or 0) or 0 end
    redis.call('HSET', meta, 'adjusted', account[1] - account[2] - account[3])
  end
end
return { { #gone, messages }, each, errors }
