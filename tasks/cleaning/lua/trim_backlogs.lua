#!lua flags=allow-oom
-- Trim the backlogs of the named channels: messages beyond `backlog`, or older than `message_timeout`.
--
-- Needs    lease.lua, errors.lua, sound.lua, over_backlog.lua or too_old.lua, ids.lua, unkept.lua, account.lua,
--          trims.lua
-- KEYS  lease, meta       of this sweep in this shard; of the shard
--       sizes, heads, trimmed   see chat/store/keys.py
--       log               of each channel, in the order of the names
-- ARGV  owner, lease_ms   see lease.lua
--       backlog           messages to keep at most
--       message_timeout   age in ms from which a message is too old
--       budget            messages to trim at most in this call; the rest stays due
--       name...           of the channels
--       id...             with an archive: of the last message handed over of each; no more goes
-- Returns {{messages} trimmed, {of each name...}, {place of a name, error...}}; {} without the lease
local meta, sizes, heads, trimmed = unpack(KEYS, 2, 5)
local backlog, message_timeout, budget = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local logs = { unpack(KEYS, 6) }
local names, ids = { unpack(ARGV, 6, 5 + #logs) }, { unpack(ARGV, 6 + #logs) }

local unkept, each = 0, {}

local function clean(channel, log, handed, known_base, known_size)
  local size = redis.call('LLEN', log)
  if size == 0 and not known_size then
    headless[#headless + 1] = channel -- removed since it was named
    return 0
  end
  local base, gone = known_base or above_all(redis.call('HGET', meta, 'floor')), math.max((known_size or 0) - size, 0)
  local excess = count_excess(log, size, backlog, message_timeout)
  if handed then excess = math.max(0, math.min(excess, handed - base)) end
  local count = math.min(excess, budget - messages)
  trim(channel, log, base + gone, size, count)
  set_size(channel, size - count)
  if size == count and gone + (handed and 0 or count) > 0 then unkept = math.max(unkept, base + gone + count) end
  lost = lost + gone
  return count
end

local done = attempt_all(#names, function()
  confirm_shard(meta, trimmed, sizes, heads)
  local bases, known_sizes = redis.call('HMGET', trimmed, unpack(names)), redis.call('ZMSCORE', sizes, unpack(names))
  for i, channel in ipairs(names) do
    if messages >= budget then break end
    each[i] = attempt(i, clean, channel, logs[i], tonumber(ids[i]), tonumber(bases[i]), tonumber(known_sizes[i])) or 0
  end
  write_trims(heads, trimmed, sizes)
end)
if not done then return { { 0 }, {}, errors } end

write_account(meta)
if unkept > 0 then note_unkept(meta, unkept) end
return { { messages }, each, errors }
