-- A channel that is gone begins with archived messages, unless it was ever given an id above theirs.
--
-- Needs    stored.lua
--          ARGV[4]         the shard's `floor`, before the archive was read
-- Defines  base_of_gone(last)   the id before its first message, while it has none; nothing where it stays gone

local function base_of_gone(last)
  local removed_since = floor > tonumber(ARGV[4]) and last < floor -- maybe this channel, into the archive
  return last >= unsure and not removed_since and last
end
