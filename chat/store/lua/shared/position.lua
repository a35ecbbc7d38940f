-- The position of a client in a channel.
--
-- Needs    time.lua, request.lua
-- Defines  locate(state, cursor, log, base, size)   whether the client is new, the id of the last message that it has
--                                                   read, that of the last one that this call may give, and the
--                                                   position that is stored

-- `state` is what the last check that moved the client's position left in `read`: "[n]<position> <position before> <token>", n for new.
local function locate(state, cursor, log, base, size)
  local FORGOTTEN = 1e9 -- a position this far behind is from before `trimmed` was lost, not a slow reader's
  local flag, position, before, last_token = (state or ''):match('^(n?)(%d+) (%d+) (.*)$')
  local last = base + size
  position = tonumber(position)
  local new, from, stop = false, position, last
  if last_token == token then -- the reply to this very call was lost: say the same again
    new, from, stop = flag == 'n', tonumber(before), math.min(math.max(from, base), last)
  elseif cursor ~= '' and not (state and cursor:byte() == 63) then -- 63 is "?"
    -- A cursor of another history counts for nothing: its epoch, or the time of the message, tells that.
    local of_epoch, after, after_ms = cursor:match('^%??(%x*) (%d+) (%d+)$')
    after, after_ms = tonumber(after), tonumber(after_ms)
    local known = of_epoch == epoch and after <= last
    if known and after > base and after_ms > 0 then known = after_ms == sent_ms_at(log, after - base - 1) end
    from = known and after or -1
  elseif not state then
    new, from = true, last - math.min(history, size)
  end
  if from < 0 or from > last or base - from > FORGOTTEN then
    return true, base, last, position -- another history: all that is stored, never "caught up"
  end
  return new, from, stop, position
end
