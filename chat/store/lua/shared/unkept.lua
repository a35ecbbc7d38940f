-- The highest id that was removed without an archive as the last of its channel.
--
-- Defines  note_unkept(meta, id)   note such an id

-- Without `unkept`, assume that everything up to `floor` went without an archive.
local function note_unkept(meta, id)
  local known = redis.call('HMGET', meta, 'unkept', 'floor')
  if id > tonumber(known[1] or known[2] or 0) then redis.call('HSET', meta, 'unkept', id) end
end
