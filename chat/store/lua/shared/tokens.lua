-- The tokens of recent sends, by which a repeated send is known: token -> "<id>", or "<id>:<digest of the body>".
-- They go into two hashes in turn, KEYS 8 and 9; windows.lua says which. A repeated send ends here.
--
-- Needs    time.lua, message.lua
-- Defines  base             the id before the log's first message, nothing where the channel has none yet
--          first, second    what each hash holds: {value of the token, its field `window`}
local base = tonumber(redis.call('HGET', trimmed, channel))
local first = redis.call('HMGET', KEYS[8], token, 'window')
local second = redis.call('HMGET', KEYS[9], token, 'window')

local known = first[1] or second[1]
if known then
  local id, digest = known:match('^(%d+):?(.*)$')
  local sent_ms = sent_ms_at(log, id - (base or 0) - 1)
  return { tonumber(id), sent_ms > 0 and sent_ms or now_ms, digest }
end
