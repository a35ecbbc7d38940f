-- A sweep would never see a channel that its index has lost.
--
-- Needs    time.lua, request.lua
-- Defines  watched                   the index that this call looks into: one a call, by the token, as each look costs
--                                    as much as another command of a check. `polled` is put right by every check
--          mend_index(log, channel, size)   put a channel with messages back into it
local look = token:byte(2) % 3
local watched = look == 0 and updated or look == 1 and sizes or heads

local function mend_index(log, channel, size)
  local score = size
  if watched ~= sizes then
    score = credible(sent_ms_at(log, watched == updated and size - 1 or 0))
    if score == 0 then score = now_ms end -- an entry that is none of ours makes no channel due
  end
  redis.call('ZADD', watched, score, channel)
end
