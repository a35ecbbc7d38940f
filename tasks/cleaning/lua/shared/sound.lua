-- Are the keys of the shard sound that change when messages go? Whoever looks asks too: what would be refused is named
-- in a dry run, and no archive gets it.
--
-- Needs    numbers.lua
-- Defines  confirm_shard(meta, trimmed, index...)   end in an error where one of these is damaged

local function confirm_shard(meta, trimmed, ...)
  confirm_numbers(meta, 'removed', 'floor', 'unkept')
  redis.call('HLEN', trimmed)
  for _, index in ipairs({ ... }) do redis.call('ZCARD', index) end
end
