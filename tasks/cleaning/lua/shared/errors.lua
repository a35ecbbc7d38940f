-- An error in what is stored of one channel, as a key of another type, must not keep the others from being cleaned.
--
-- Defines  errors                        {place of a channel in the call, its error...}
--          note_error(place, why)        note an error
--          attempt(place, work, ...)     what `work` returns; nothing after an error, which is noted
--          attempt_all(count, work)      whether `work` was done; an error, as in a key of the shard, is each channel's
--          of_all(names, command, key)   what a key of the shard has of each name; or nothing, and the error, for
--                                        channels that may do without
local errors = {}

local function note_error(place, why)
  errors[#errors + 1] = place
  errors[#errors + 1] = why.err or why
end

local function attempt(place, work, ...)
  local done, result = pcall(work, ...)
  if done then return result end
  note_error(place, result)
end

local function attempt_all(count, work)
  local done, why = pcall(work)
  if done then return true end
  errors = {}
  for place = 1, count do note_error(place, why) end
  return false
end

local function of_all(names, command, key)
  local done, reply = pcall(redis.call, command, key, unpack(names))
  if done then return reply end
  return {}, reply
end
