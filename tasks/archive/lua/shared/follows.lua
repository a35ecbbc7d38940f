-- Archived messages only follow on what is stored: a channel that is gone stays gone.
--
-- Defines  base_of_gone   as begins.lua does

local function base_of_gone() end
