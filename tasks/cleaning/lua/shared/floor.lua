-- The ids of channels that are removed: none of them is ever given again.
--
-- Needs    KEYS[2]         meta of the shard
-- Defines  floor           the highest id of any channel removed
--          unkept          the highest id that was removed without an archive as the last of its channel
--          fold(channel, last)   leave nothing of a channel but the shard's floor
--          write_floor(trimmed)  write what has changed
local floor, known_unkept = unpack(redis.call('HMGET', KEYS[2], 'floor', 'unkept'))
floor = tonumber(floor or 0)
local unkept = tonumber(known_unkept or floor) -- where it is missing: see unkept.lua
local floor_before, folded = floor, {}

local function fold(channel, last)
  folded[#folded + 1] = channel
  floor = math.max(floor, last)
end

local function write_floor(trimmed)
  if #folded > 0 then redis.call('HDEL', trimmed, unpack(folded)) end
  if floor > floor_before then redis.call('HSET', KEYS[2], 'floor', floor) end
end
