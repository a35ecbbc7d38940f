-- The account of a shard's messages, in its `meta`: sent - removed + restored + adjusted are stored.
--
-- Defines  messages               messages that this call takes from logs
--          lost                   messages that the logs had lost before: their ids were given, so they count too
--          write_account(meta)    count all these as removed
--          balance(meta)          put the account of an empty shard right, whatever made it wrong
local messages, lost = 0, 0

local function write_account(meta)
  if messages + lost > 0 then redis.call('HINCRBY', meta, 'removed', messages + lost) end
end

local function balance(meta)
  local account = redis.call('HMGET', meta, 'removed', 'restored', 'sent')
  for i = 1, 3 do account[i] = tonumber(account[i] or 0) or 0 end
  redis.call('HSET', meta, 'adjusted', account[1] - account[2] - account[3])
end
