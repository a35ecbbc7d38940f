-- How much a call may give: about 1 MB of entries.
--
-- Defines  room             bytes of entries that this call still gives
--          EACH             what an entry costs beside its text, in bytes of text
--          STEP             entries read at a time, as other senders may be allowed longer ones
local room, EACH, STEP = 1e6, 100, 16
