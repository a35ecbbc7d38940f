-- The entries of the logs that a call reads, about 1 MB for all of them.
--
-- Needs    longest          bytes of the longest entry that is allowed; only for add_entries
-- Defines  room             bytes of entries that this call still gives
--          EACH             bytes that take as long as an entry does beside its text
--          STEP             entries read at a time, as other senders may be allowed longer ones
--          add_entries(reply, log, from, to)   append entries `from` to `to - 1` until 1 MB is used, at least one;
--                                              return how many
local room, EACH, STEP = 1e6, 100, 16

local function add_entries(reply, log, from, to)
  local begin = from
  while from < to and (room > 0 or from == begin) do
    local fitting = math.max(1, math.min(STEP, math.floor(room / longest))) -- as many as surely fit in
    for _, entry in ipairs(redis.call('LRANGE', log, from, math.min(from + fitting, to) - 1)) do
      reply[#reply + 1] = entry
      from, room = from + 1, room - #entry - EACH
    end
  end
  return from - begin
end
