-- Which of some channels are idle? A message that came in since they were named keeps its channel.
--
-- Needs    time.lua, errors.lua
-- Defines  idle_sizes(updated, names, logs, timeout)   messages of each channel that is idle for `timeout` ms, by place

local function idle_sizes(updated, names, logs, timeout)
  local found = {}
  for place, updated_ms in ipairs(redis.call('ZMSCORE', updated, unpack(names))) do
    if updated_ms and now_ms - updated_ms >= timeout then
      local size = redis.pcall('LLEN', logs[place])
      if type(size) == 'number' then found[place] = size else note_error(place, size) end
    end
  end
  return found
end
