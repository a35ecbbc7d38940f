-- The tokens of recent sends, by which a repeated send is known: token -> "<id>", or "<id>:<digest of the body>".
-- They go into two hashes in turn, KEYS 8 and 9; windows.lua says which, and when a hash ends.
--
-- Needs    time.lua, windows.lua
-- Defines  find_token(token, log, base)               the reply of a repeated send, or nothing; call it first
--          note_token(token, id, digest, dedupe_ms)   note a token, for `dedupe_ms` at least
local windows -- of both hashes, see windows.lua

local function find_token(token, log, base)
  local first = redis.call('HMGET', KEYS[8], token, 'window')
  local second = redis.call('HMGET', KEYS[9], token, 'window')
  windows = { [8] = first[2] or '0 0', [9] = second[2] or '0 0' }
  local known = first[1] or second[1]
  if not known then return end
  local id, digest = known:match('^(%d+):?(.*)$')
  local sent_ms = sent_ms_at(log, id - (base or 0) - 1)
  return { tonumber(id), sent_ms > 0 and sent_ms or now_ms, digest }
end

local function note_token(token, id, digest, dedupe_ms)
  local value = string.format('%d', id) .. (digest ~= '' and ':' .. digest or '')
  redis.call('HSET', KEYS[choose_hash(windows, tonumber(dedupe_ms))], token, value)
end
