-- Remove the oldest messages of channels. What concerns the indexes is collected, and written for all channels at once.
--
-- Needs    time.lua
-- Defines  headless                        channels that have no message left
--          set_base(channel, base)         the id before the first message of a channel
--          set_size(channel, size)         its messages stored
--          plan_drop(channel, log, base, size, count)   drop the oldest `count` of `size` messages, but for `sizes`
--          write_drops(heads, trimmed, sizes)           do all that
local headless = {}
local oldest, bases, lengths, trims = {}, {}, {}, {} -- for ZADD heads, HSET trimmed, ZADD sizes, and LTRIM of each log

local function set_base(channel, base)
  bases[#bases + 1] = channel
  bases[#bases + 1] = base
end

local function set_size(channel, size)
  lengths[#lengths + 1] = size
  lengths[#lengths + 1] = channel
end

local function plan_drop(channel, log, base, size, count)
  if count < size then
    oldest[#oldest + 1] = credible(sent_ms_at(log, count))
    oldest[#oldest + 1] = channel
  else
    headless[#headless + 1] = channel
  end
  set_base(channel, base + count)
  if count > 0 then trims[log] = count end
end

local function write_drops(heads, trimmed, sizes)
  if #oldest > 0 then redis.call('ZADD', heads, unpack(oldest)) end
  if #headless > 0 then redis.call('ZREM', heads, unpack(headless)) end
  if #bases > 0 then redis.call('HSET', trimmed, unpack(bases)) end
  if #lengths > 0 then redis.call('ZADD', sizes, unpack(lengths)) end
  for log, count in pairs(trims) do redis.call('LTRIM', log, count, -1) end
end
