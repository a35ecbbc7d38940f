-- Forget clients of channels. What concerns the shard is collected, and written for all channels at once.
--
-- Needs    last_client.lua
-- Defines  forgotten                       clients forgotten so far
--          forget_some(channel, seen, read, gone, oldest_ms)   forget those named; the oldest of the others checked then
--          forget_all(channel, seen, read, gone, positions)    forget all, also those whose `seen` was lost
--          write_forgotten(meta, polled)   do what concerns the shard
local forgotten, orphans = 0, 0
local oldest, deserted, unlinked = {}, {}, {} -- for ZADD polled, ZREM polled and UNLINK

local function forget_some(channel, seen, read, gone, oldest_ms)
  if #gone > 0 then
    forgotten = forgotten + redis.call('HDEL', read, unpack(gone))
    redis.call('ZREM', seen, unpack(gone))
  end
  oldest[#oldest + 1] = oldest_ms
  oldest[#oldest + 1] = channel
end

local function forget_all(channel, seen, read, gone, positions)
  local known = #gone > 0 and redis.call('HDEL', read, unpack(gone)) or 0
  forgotten, orphans = forgotten + known, orphans + positions - known
  deserted[#deserted + 1] = channel
  unlinked[#unlinked + 1] = seen
  unlinked[#unlinked + 1] = read
end

local function write_forgotten(meta, polled)
  if #oldest > 0 then redis.call('ZADD', polled, unpack(oldest)) end
  if #deserted > 0 then
    redis.call('ZREM', polled, unpack(deserted))
    redis.call('UNLINK', unpack(unlinked))
  end
  count_forgotten(meta, polled, forgotten + orphans)
end
