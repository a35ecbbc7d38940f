-- Read what a removal would take, for the archive: about 1 MB, or 1,000 messages, in one call.
--
-- Defines  read_slice(log, base, count)   {id of the last entry, entry...}: the oldest `count` entries of a log, or as
--                                         many as this call still takes; {-1} where it takes no more;
--                                         {0} where the channel's ids were lost, which the removal mends
local MOST, LARGEST, STEP = 1000, 1e6, 20
local messages, bytes = 0, 0

local function read_slice(log, base, count)
  if messages >= MOST or bytes >= LARGEST then return { -1 } end
  if not base then return { 0 } end
  local reply = { 0 }
  while #reply <= count and messages < MOST and bytes < LARGEST do
    for _, entry in ipairs(redis.call('LRANGE', log, #reply - 1, math.min(#reply + STEP - 1, count) - 1)) do
      reply[#reply + 1] = entry
      messages, bytes = messages + 1, bytes + #entry
    end
  end
  reply[1] = base + #reply - 1
  return reply
end
