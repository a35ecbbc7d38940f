-- The highest ids of channels that are removed: of all, and of those whose last messages went without an archive.
--
-- Defines  read_floor(meta)        `floor` and `unkept` of a shard
--          note_unkept(meta, id)   note an id that was removed without an archive as the last of its channel

-- Without `unkept`, assume that everything up to `floor` went without an archive.
local function read_floor(meta)
  local floor, unkept = unpack(redis.call('HMGET', meta, 'floor', 'unkept'))
  return tonumber(floor or 0), tonumber(unkept or floor or 0)
end

local function note_unkept(meta, id)
  local _, unkept = read_floor(meta)
  if id > unkept then redis.call('HSET', meta, 'unkept', id) end
end
