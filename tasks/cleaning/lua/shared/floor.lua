-- The ids of channels that are removed: none of them is ever given again.
--
-- Needs    unkept.lua
--          KEYS[2]               meta of the shard
-- Defines  floor                 the highest id of any channel removed
--          unkept                the highest id that was removed without an archive as the last of its channel
--          fold(channel, last)   leave nothing of a channel but the shard's floor
--          write_floor(trimmed)  write what has changed, but for `unkept`
local floor, unkept = read_floor(KEYS[2])
local floor_before, folded = floor, {}

local function fold(channel, last)
  folded[#folded + 1] = channel
  if last > floor then floor = last end
end

local function write_floor(trimmed)
  if #folded > 0 then redis.call('HDEL', trimmed, unpack(folded)) end
  if floor > floor_before then redis.call('HSET', KEYS[2], 'floor', floor) end
end
