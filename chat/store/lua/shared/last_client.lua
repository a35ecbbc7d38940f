-- What the last client of a channel leaves behind.
--
-- Needs    ids.lua
-- Defines  last_id(base, traces, floor)   highest id that a channel can have had which was removed before its last client
--          count_forgotten(meta, polled, count)   count clients that are forgotten, or whose positions are gone

-- Has it lost `trimmed`? Then above every id it can have had. A call that is repeated finds no traces.
local function last_id(base, traces, floor)
  return base or traces and above_all(floor) or 0
end

local function count_forgotten(meta, polled, count)
  if count > 0 then redis.call('HINCRBY', meta, 'clients', -count) end
  if redis.call('EXISTS', polled) == 0 then redis.call('HSET', meta, 'clients', 0) end -- empty: the account is right again
end
