-- Do archived messages follow on what is stored? If not, or if nothing is missing, the script ends here.
-- Messages that are stored already must be the same, so a repeat finds them and changes nothing.
--
-- Needs    KEYS, ARGV      of restore.lua
-- Defines  count           messages given
--          missing         of these, the oldest that are not stored
--          base            id before the first message that is stored
--          sent_ms(entry)  its time
local log, updated, sizes, heads, polled, trimmed, meta = unpack(KEYS)
local channel, last, begin, other_epoch = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4] == '1'
local count = #ARGV - 4

local function sent_ms(entry) return tonumber(entry:match('^%d+')) end

local base, size = tonumber(redis.call('HGET', trimmed, channel)), redis.call('LLEN', log)
if tonumber(redis.call('ZSCORE', sizes, channel) or 0) ~= size then return { 0 } end -- a key was lost: send or check first
-- What went into an archive is known there, what went without one had an id of at most `unkept`, and no channel that is
-- gone had one above `floor`.
local floor, unkept = unpack(redis.call('HMGET', meta, 'floor', 'unkept'))
local highest = math.min(tonumber(floor or 0), tonumber(unkept or floor or 0))
if not base then -- it is gone: was it ever given an id above `last`?
  local lost = size > 0 or redis.call('ZSCORE', polled, channel) or redis.call('ZSCORE', updated, channel)
  if lost or not begin or last < highest then return { 0 } end
  base = last
end

if last < base then return { 0 } end
local same = math.min(last - base, count) -- so many are above `base`: these must be stored already
local stored = same > 0 and redis.call('LRANGE', log, last - base - same, last - base - 1)
for i = 1, same do
  if stored[i] ~= ARGV[4 + count - same + i] then return { 0 } end
end
local missing = count - same
if missing == 0 then return { 1 } end
if other_epoch and base - missing < highest then return { 0 } end -- the channel may have given these ids to others
if size > 0 and sent_ms(ARGV[4 + missing]) > sent_ms(redis.call('LINDEX', log, 0)) then return { 0 } end
