-- The ids of a channel that has none yet, or that has lost a key. The message at index i of a log has the id
-- base + i + 1, where `trimmed` holds the base: whatever is lost must never make an id come twice.
--
-- Needs    time.lua
-- Defines  above_all(floor)                       an id above every one that a channel can have had
--          begin(trimmed, meta, channel, traces)  give a channel without a base one, and return it
--          count_removed(trimmed, meta, channel, base, count)   count messages as removed, and return the new base

-- One message a millisecond since 1970 is more than any channel has had. `floor` is of the channels removed.
local function above_all(floor)
  return math.max(tonumber(floor or 0), now_ms)
end

-- A channel without any trace begins above every id of the shard's removed channels; any other has lost its `trimmed`.
local function begin(trimmed, meta, channel, traces)
  local floor = redis.call('HGET', meta, 'floor')
  local base = traces and above_all(floor) or tonumber(floor or 0)
  redis.call('HSET', trimmed, channel, base)
  return base
end

local function count_removed(trimmed, meta, channel, base, count)
  redis.call('HSET', trimmed, channel, base + count)
  redis.call('HINCRBY', meta, 'removed', count)
  return base + count
end
