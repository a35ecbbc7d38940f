-- When the two hashes of tokens end, KEYS 8 and 9. A hash's field `window` is "<ms when it ends> <ms that it lives>".
--
-- Needs    time.lua
-- Defines  choose_hash(windows, dedupe_ms)   8 or 9, the hash that keeps a token for `dedupe_ms` from now;
--                                            `windows` are the fields `window` of both
local LONGEST_MS = 2 * 86400e3 -- two of the longest dedupe windows that are allowed

-- Open the hash that has ended, or prolong the last one while both live; return the one to use.
local function turn(windows, ends, last, dedupe_ms)
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
  local left = math.min(redis.call('PTTL', KEYS[other]), LONGEST_MS)
  local moment = math.max((number + 2) * dedupe_ms, now_ms + left)
  set_end(other, moment, moment - now_ms)
  return other
end

-- A token goes into the hash that ends last, if that is still `dedupe_ms` away. Else the other hash is opened if it has
-- ended; if not, the last one is prolonged. A hash is never prolonged after the other one was opened, so it does end.
-- With one `dedupe_ms` each takes tokens for one window, and lives for one more.
local function choose_hash(windows, dedupe_ms)
  local ends = { [8] = tonumber(windows[8]:match('^%d+')), [9] = tonumber(windows[9]:match('^%d+')) }
  local last = ends[9] > ends[8] and 9 or 8
  local left = ends[last] - now_ms
  return left >= dedupe_ms and left <= AHEAD_MS and last or turn(windows, ends, last, dedupe_ms)
end
