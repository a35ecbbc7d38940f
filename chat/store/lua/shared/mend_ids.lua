-- The body of mend_ids(log, seen, read, channel, base, size, lost): give a channel that has no base one, or count the
-- messages as removed that were lost with its log; return its base.
--
-- Needs    request.lua, begin.lua, unkept.lua
local log, seen, read, channel, base, size, lost = ...

if base then
  redis.call('HSET', trimmed, channel, base + lost)
  redis.call('HINCRBY', meta, 'removed', lost)
  redis.call('ZADD', sizes, 0, channel)
  note_unkept(meta, base + lost)
  return base + lost
end
local traces = size > 0 or redis.call('EXISTS', seen, read) > 0 or redis.call('ZSCORE', updated, channel)
return begin(trimmed, meta, channel, traces)
