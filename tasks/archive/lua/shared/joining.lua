-- Do archived messages follow on what is stored? If not, or if nothing is missing, the script ends here.
-- Messages that are stored already must be the same, so a repeat finds them and changes nothing.
--
-- Needs    stored.lua, begins.lua or follows.lua
--          KEYS, ARGV      of restore.lua
-- Defines  entries         those given, oldest first
--          missing         how many of these are not stored, the oldest
--          base            id before the first message that is stored
--          sent_ms(entry)  its time
local last, epoch, entries = tonumber(ARGV[2]), ARGV[3], { unpack(ARGV, 5) }

local function sent_ms(entry) return tonumber(entry:match('^%d+')) end

if tonumber(redis.call('ZSCORE', sizes, channel) or 0) ~= size then return { 0 } end -- a key was lost: send or check first
if not base then
  local lost = size > 0 or redis.call('ZSCORE', polled, channel) or redis.call('ZSCORE', updated, channel)
  base = not lost and base_of_gone(last)
end
if not base or last < base then return { 0 } end

local same = math.min(last - base, #entries) -- so many are above `base`: these must be stored already
local stored = same > 0 and redis.call('LRANGE', log, last - base - same, last - base - 1)
for i = 1, same do
  if stored[i] ~= entries[#entries - same + i] then return { 0 } end
end
local missing = #entries - same
if missing == 0 then return { 1 } end
local other_epoch = epoch == '' or epoch ~= own_epoch
if other_epoch and base - missing < unsure then return { 0 } end -- the channel may have given these ids to others
if size > 0 and sent_ms(entries[missing]) > sent_ms(redis.call('LINDEX', log, 0)) then return { 0 } end
