#!lua flags=allow-oom
-- Note in the record of the runs that a run was scheduled, began, ended or failed.
--
-- Needs    time.lua
-- KEYS  runs             see chat/store/keys.py
-- ARGV  sweep            clean_channels, clean_backlog or clean_clients; scheduled: an entry of the beat schedule
--       moment           scheduled, started, ended or failed
--       text             to keep with the time: the report, or the error
--       run              token of the run: with totals only its first note is taken, so a repeat counts nothing twice
--       name, count...   totals of the sweep to add to
-- Returns nothing
local COUNTED = 32 -- tokens remembered: so many runs of a sweep may be counted between a note and its repeat

local runs = KEYS[1]
local sweep, moment, text, run = unpack(ARGV, 1, 4)

if #ARGV > 4 then
  local counted = redis.call('HGET', runs, sweep .. ':counted') or ''
  if string.find(counted, run, 1, true) then return end
  redis.call('HSET', runs, sweep .. ':counted', string.sub(counted .. run .. ' ', -COUNTED * (#run + 1)))
end
redis.call('HSET', runs, sweep .. ':' .. moment, string.format('%d ', now_ms) .. text)
for i = 5, #ARGV, 2 do
  redis.call('HINCRBY', runs, sweep .. ':' .. ARGV[i], ARGV[i + 1])
end
