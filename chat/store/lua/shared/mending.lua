-- Repairs that a check makes on the channel it reads.
--
-- Needs    time.lua, ids.lua, unkept.lua, request.lua
-- Defines  bounds(log, seen, read, channel)     the id before the log's first message, and the length of the log
--          mend_index(log, channel, size)       put back the index that has lost a channel with messages

local function bounds(log, seen, read, channel)
  local size = redis.call('LLEN', log)
  local base = tonumber(redis.call('HGET', trimmed, channel))
  if not base then
    local traces = size > 0 or redis.call('EXISTS', seen, read) > 0 or redis.call('ZSCORE', updated, channel)
    base = begin(trimmed, meta, channel, traces)
  elseif size == 0 then
    local lost = tonumber(redis.call('ZSCORE', sizes, channel) or 0)
    if lost > 0 then -- with the log
      base = count_removed(trimmed, meta, channel, base, lost)
      redis.call('ZADD', sizes, 0, channel)
      note_unkept(meta, base)
    end
  end
  return base, size
end

-- A sweep would never see a channel that its index has lost. One index a call, by the token, as each look costs as much
-- as another command of a check. `polled` is put right by every check.
local function mend_index(log, channel, size)
  local look = token:byte(2) % 3
  local index = look == 0 and updated or look == 1 and sizes or heads
  if redis.call('ZSCORE', index, channel) then return end
  local score = size
  if look ~= 1 then
    score = credible(sent_ms_at(log, look == 0 and size - 1 or 0))
    if score == 0 then score = now_ms end -- an entry that is none of ours makes no channel due
  end
  redis.call('ZADD', index, score, channel)
end
