-- The entries of the logs that a check gives, about 1 MB for all of them.
--
-- Needs    request.lua, room.lua
-- Defines  add_entries(reply, log, from, to)   append entries `from` to `to - 1` until 1 MB is used, at least one;
--                                              return how many

local function add_entries(reply, log, from, to)
  local begin, used = from, #reply
  while from < to and (room > 0 or from == begin) do
    local fitting = math.max(1, math.min(STEP, math.floor(room / longest))) -- as many as surely fit in
    local part = redis.call('LRANGE', log, from, math.min(from + fitting, to) - 1)
    for i = 1, #part do
      used = used + 1
      reply[used], room = part[i], room - #part[i] - EACH
    end
    from = from + #part
  end
  return from - begin
end
