-- The checks of all channels of a call.
--
-- Needs    time.lua, request.lua, reading.lua
-- Defines  check_all(refusal)   the reply of check.lua; `refusal`, if there is one, for each channel where the client has
--                               no position

local function check_all(refusal)
  local count = (#KEYS - 6) / 3
  if count == 1 then
    local reply = check(refusal, KEYS[7], KEYS[8], KEYS[9], ARGV[6], ARGV[7])
    if reply ~= refusal then redis.call('ZADD', polled, 'NX', now_ms, ARGV[6]) end
    return { reply }
  end

  local replies, polls = {}, {}
  for turn = 1, count do
    -- start at another channel each call, because the first one may use the whole 1 MB
    local i = (token:byte() + turn) % count + 1
    local log, seen, read = unpack(KEYS, 3 * i + 4, 3 * i + 6)
    local channel, cursor = unpack(ARGV, 2 * i + 4, 2 * i + 5)
    local done, reply = pcall(check, refusal, log, seen, read, channel, cursor)
    replies[i] = (done or type(reply) == 'table') and reply or { err = 'ERR ' .. reply }
    if replies[i] ~= refusal then
      polls[#polls + 1] = now_ms
      polls[#polls + 1] = channel
    end
  end
  if #polls > 0 then redis.call('ZADD', polled, 'NX', unpack(polls)) end
  return replies
end
