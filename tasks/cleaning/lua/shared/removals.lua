-- Remove channels whole. What concerns the indexes is collected, and written for all channels at once.
--
-- Needs    account.lua, trims.lua, floor.lua
-- Defines  removed                         channels removed
--          remove(channel, log, last, connected)   remove a channel whose last id was `last`
--          write_removals(meta, updated, sizes)    do what concerns the shard, after write_account
local removed, logs_removed = {}, {}

local function remove(channel, log, last, connected)
  if connected then
    set_base(channel, last) -- its clients go on with the next id
  else
    fold(channel, last)
  end
  headless[#headless + 1], removed[#removed + 1], logs_removed[#logs_removed + 1] = channel, channel, log
end

local function write_removals(meta, updated, sizes)
  if #removed == 0 then return end
  redis.call('ZREM', updated, unpack(removed))
  redis.call('ZREM', sizes, unpack(removed))
  redis.call('UNLINK', unpack(logs_removed))
  redis.call('HSET', meta, 'unkept', unkept)
  if redis.call('EXISTS', sizes) == 0 then balance(meta) end
end
