-- The highest id that was removed without an archive as the last of its channel.
--
-- Defines  note_unkept(meta, id)   note such an id

-- A version without `unkept` kept no archive ids: where the field is missing, all up to the floor may have gone so.
local function note_unkept(meta, id)
  local known = redis.call('HMGET', meta, 'unkept', 'floor')
  if id > tonumber(known[1] or known[2] or 0) then redis.call('HSET', meta, 'unkept', id) end
end
