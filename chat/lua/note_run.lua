#!lua flags=allow-oom
-- Note in the record of the runs that a run began, ended or failed.
--
-- KEYS  runs             see chat/_keys.py
-- ARGV  sweep            clean_channels, clean_backlog or clean_clients
--       moment           started, ended or failed
--       text             to keep with the time: the report, or the error
--       name, count...   totals of the sweep to add to
-- Returns nothing
local runs = KEYS[1]
local sweep, moment, text = unpack(ARGV, 1, 3)

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('HSET', runs, sweep .. ':' .. moment, string.format('%d ', now_ms) .. text)
for i = 4, #ARGV, 2 do
  redis.call('HINCRBY', runs, sweep .. ':' .. ARGV[i], ARGV[i + 1])
end
