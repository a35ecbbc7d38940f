-- Trim logs: their oldest messages go. What concerns the indexes is collected, and written for all channels at once.
--
-- Needs    time.lua, account.lua
-- Defines  trim(channel, log, base, size, count)   trim `count` of `size` messages; `base` is the id before the first
--          set_base(channel, base)          write the id before the first message of a channel
--          set_size(channel, size)          write how many messages it has
--          headless                         channels that have no message left
--          write_trims(heads, trimmed, sizes)   do all that
local headless = {}
local oldest, bases, lengths, cuts = {}, {}, {}, {} -- for ZADD heads, HSET trimmed, ZADD sizes, and LTRIM of each log

local function set_base(channel, base)
  bases[#bases + 1] = channel
  bases[#bases + 1] = base
end

local function set_size(channel, size)
  lengths[#lengths + 1] = size
  lengths[#lengths + 1] = channel
end

local function trim(channel, log, base, size, count)
  if count < size then
    oldest[#oldest + 1] = credible(sent_ms_at(log, count))
    oldest[#oldest + 1] = channel
  else
    headless[#headless + 1] = channel
  end
  set_base(channel, base + count)
  if count > 0 then cuts[log] = count end
  messages = messages + count
end

local function write_trims(heads, trimmed, sizes)
  if #oldest > 0 then redis.call('ZADD', heads, unpack(oldest)) end
  if #headless > 0 then redis.call('ZREM', heads, unpack(headless)) end
  if #bases > 0 then redis.call('HSET', trimmed, unpack(bases)) end
  if #lengths > 0 then redis.call('ZADD', sizes, unpack(lengths)) end
  for log, count in pairs(cuts) do redis.call('LTRIM', log, count, -1) end
end
