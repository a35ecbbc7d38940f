-- The keys and arguments of send.lua by name; the hashes of tokens are KEYS 8 and 9.
--
-- Defines  log, updated, sizes, heads, polled, trimmed, meta, channel, body, token, digest   as in send.lua
--          hard_backlog, dedupe_ms   as numbers
local log, updated, sizes, heads, polled, trimmed, meta = unpack(KEYS, 1, 7)
local channel, body, token, digest = unpack(ARGV, 1, 4)
local hard_backlog, dedupe_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
