#!lua flags=allow-oom
-- Remove the oldest messages of the named channels: beyond `backlog`, or older than `message_timeout`.
-- In front stands over_backlog.lua or too_old.lua.
--
-- KEYS  lease, meta       of this sweep in this shard; of the shard
--       sizes, heads, trimmed   see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  owner, lease_ms   see lease.lua
--       backlog           messages to keep at most
--       message_timeout   age in ms from which a message is too old
--       budget            messages to remove at most in this call; the rest stays due
--       name...           of the channels
--       id...             with an archive: of the last message handed over of each; no more goes
-- Returns {{messages} removed, {of each name...}, {place of a name, error...}}; {} without the lease
local meta, sizes, heads, trimmed = unpack(KEYS, 2, 5)
local backlog, message_timeout, budget = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local logs = { unpack(KEYS, 6) }
local names = { unpack(ARGV, 6, 5 + #logs) }

local messages, lost, unkept, each = 0, 0, 0, {}

local function plan(place, known_base, known_size)
  local channel, log, handed = names[place], logs[place], tonumber(ARGV[5 + #logs + place])
  local size = redis.call('LLEN', log)
  if size == 0 and not known_size then
    headless[#headless + 1] = channel -- removed since it was named
    return 0
  end
  local base = known_base or above_all(redis.call('HGET', meta, 'floor'))
  local drop = count_excess(log, size, backlog, message_timeout)
  if handed then drop = math.max(0, math.min(drop, handed - base)) end
  drop = math.min(drop, budget - messages)
  local gone = math.max((known_size or 0) - size, 0)
  plan_drop(channel, log, base + gone, size, drop)
  set_size(channel, size - drop)
  if size == drop and gone + (handed and 0 or drop) > 0 then unkept = math.max(unkept, base + drop + gone) end
  messages, lost = messages + drop, lost + gone
  return drop
end

local done = attempt_all(#names, function()
  confirm_shard(meta, trimmed, sizes, heads)
  local bases, known_sizes = redis.call('HMGET', trimmed, unpack(names)), redis.call('ZMSCORE', sizes, unpack(names))
  for place = 1, #names do
    if messages >= budget then break end
    each[place] = attempt(place, plan, place, tonumber(bases[place]), tonumber(known_sizes[place])) or 0
  end
  write_drops(heads, trimmed, sizes)
end)
if not done then return { { 0 }, {}, errors } end

if messages + lost > 0 then redis.call('HINCRBY', meta, 'removed', messages + lost) end
if unkept > 0 then note_unkept(meta, unkept) end
return { { messages }, each, errors }
