-- The numbers in a shard's `meta`.
--
-- Defines  confirm_numbers(meta, field...)   end in an error where one of these fields is no number: HINCRBY would,
--                                            but in the midst of the changes

local function confirm_numbers(meta, ...)
  local values = redis.call('HMGET', meta, ...)
  for i, field in ipairs({ ... }) do
    local value = values[i] or '0'
    if #value > 18 or value ~= '0' and not value:match('^%-?[1-9]%d*$') then
      error({ err = 'ERR the field ' .. field .. ' of meta is no number' })
    end
  end
end
