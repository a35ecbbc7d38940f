-- A channel that is gone begins with archived messages, unless it was ever given an id above theirs.
--
-- Defines  base_of_gone(last, unsure)   the id before its first message, while it has none; nothing where it stays gone

local function base_of_gone(last, unsure)
  return last >= unsure and last
end
