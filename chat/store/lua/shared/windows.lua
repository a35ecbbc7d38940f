-- When the two hashes of tokens end. A hash's field `window` is "<ms when it ends> <ms that it lives>".
--
-- A token goes into the hash that ends last, if that is still `dedupe_ms` away. Else the other hash is opened if it has
-- ended; if not, the last one is prolonged. A hash is never prolonged after the other one was opened, so it does end.
-- With one `dedupe_ms` each takes tokens for one window, and lives for one more.
--
-- Needs    time.lua, tokens.lua
-- Defines  last, left       8 or 9, the hash that ends last, and the ms until then
--          turn(last, first_window, second_window, dedupe_ms)   open the hash that has ended, or prolong the last one
--                                                               while both live; return which one to use
local first_end, second_end = tonumber((first[2] or '0'):match('^%d+')), tonumber((second[2] or '0'):match('^%d+'))
local last = second_end > first_end and 9 or 8
local left = (last == 8 and first_end or second_end) - now_ms

local function turn(last, first_window, second_window, dedupe_ms)
  local LONGEST_MS = 2 * 86400e3 -- two of the longest dedupe windows that are allowed
  local windows = { [8] = first_window or '0 0', [9] = second_window or '0 0' }
  local ends = { [8] = tonumber(windows[8]:match('^%d+')), [9] = tonumber(windows[9]:match('^%d+')) }
  local function set_end(i, moment, lives)
    redis.call('HSET', KEYS[i], 'window', string.format('%d %d', moment, lives))
    redis.call('PEXPIREAT', KEYS[i], moment)
    ends[i] = moment
  end

  if ends[last] > now_ms + AHEAD_MS then -- by a clock that was wrong?
    for i = 8, 9 do
      local lives = tonumber(windows[i]:match('%d+$'))
      if ends[i] - lives > now_ms + AHEAD_MS then set_end(i, now_ms + math.max(lives, dedupe_ms), lives) end
    end
    if ends[last] - now_ms >= dedupe_ms then return last end
  end
  local number = math.floor(now_ms / dedupe_ms)
  local other = ends[last] > now_ms and 17 - last or 8 + number % 2
  if ends[other] > now_ms then
    set_end(last, ends[other] + dedupe_ms, ends[other] + dedupe_ms - now_ms)
    return last
  end
  -- A hash without `window` keeps its tokens until its TTL.
  local left_ms = math.min(redis.call('PTTL', KEYS[other]), LONGEST_MS)
  local moment = math.max((number + 2) * dedupe_ms, now_ms + left_ms)
  set_end(other, moment, moment - now_ms)
  return other
end
