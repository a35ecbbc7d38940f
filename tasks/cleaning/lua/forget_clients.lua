#!lua flags=allow-oom
-- Forget the clients of the named channels that stopped checking: a check that came in between stays.
-- Or forget the one that leaves.
--
-- KEYS  updated, polled, trimmed, meta   see chat/store/keys.py
--       lease             of this sweep in this shard; any, for a client that leaves
--       log, seen, read   of each channel, in the order of the names
-- ARGV  owner             of the lease; only the run that holds it, and a client that leaves, change something
--       lease_ms          the lease is renewed for so long
--       client_timeout    ms without a check
--       mode              'remove'; 'tell': and whom; 'count': change nothing
--       budget            clients to forget at most in this call; the rest stays due
--       leaving           name of the client that leaves, '' for those that expired
--       name...           of the channels
-- Returns {{clients} forgotten, {of each name...}, {index of a name, error...}}; {} without the lease; the error itself
--         to a client that leaves. Of each name: to 'count' its clients, to 'tell' a list of their names, else nothing
local updated, polled, trimmed, meta, lease = unpack(KEYS, 1, 5)
local owner, lease_ms, client_timeout, mode = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local budget, leaving = tonumber(ARGV[5]), ARGV[6]

if mode ~= 'count' and leaving == '' then
  if redis.call('GET', lease) ~= owner then return {} end
  redis.call('PEXPIRE', lease, lease_ms)
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expired_ms = now_ms - client_timeout
local ahead_ms = now_ms + 3600e3 -- a stamp further ahead is of a clock that was wrong: it counts as now, as in due.lua

local floor_before = tonumber(redis.call('HGET', meta, 'floor') or 0)
local clients, orphans, floor, each, errors = 0, 0, floor_before, {}, {}

local function forget(i)
  local channel, traces, names = ARGV[i + 6], 0, { leaving }
  local log, seen, read = unpack(KEYS, 3 * i + 3, 3 * i + 5)
  if mode == 'count' then
    each[i] = redis.call('ZCOUNT', seen, '-inf', expired_ms)
    clients = clients + each[i]
    return
  end
  if leaving == '' then
    for _, name in ipairs(redis.call('ZRANGE', seen, ahead_ms, '+inf', 'BYSCORE', 'LIMIT', 0, 100)) do
      redis.call('ZADD', seen, now_ms, name)
    end
    names = redis.call('ZRANGE', seen, '-inf', expired_ms, 'BYSCORE', 'LIMIT', 0, budget - clients)
  end
  if #names > 0 then
    local forgotten = redis.call('HDEL', read, unpack(names))
    clients = clients + forgotten
    traces = forgotten + redis.call('ZREM', seen, unpack(names))
    if mode == 'tell' then each[i] = names end
  end
  local eldest = redis.call('ZRANGE', seen, 0, 0, 'WITHSCORES')
  if #eldest > 0 then
    redis.call('ZADD', polled, tonumber(eldest[2]) > ahead_ms and now_ms or eldest[2], channel)
  else
    local left = redis.call('HLEN', read) -- positions whose `seen` was lost
    local gone = redis.call('EXISTS', log) == 0 and not redis.call('ZSCORE', updated, channel)
    local last = gone and tonumber(redis.call('HGET', trimmed, channel))
    traces, orphans = traces + left + redis.call('ZREM', polled, channel), orphans + left
    redis.call('UNLINK', read)
    if gone then
      -- The channel itself went before its last client: nothing of it stays but the shard's floor.
      -- `trimmed` was lost? Above every id it can have had, as in send.lua; but a repeat of this call finds no traces.
      floor = math.max(floor, last or traces > 0 and now_ms or 0)
      redis.call('HDEL', trimmed, channel)
    end
  end
end

for i = 1, #ARGV - 6 do
  if mode ~= 'count' and clients >= budget then break end
  each[i] = mode == 'tell' and {} or 0
  local done, why = pcall(forget, i)
  if not done then
    errors[#errors + 1] = i
    errors[#errors + 1] = why.err or why
  end
end
if clients + orphans > 0 and mode ~= 'count' then redis.call('HINCRBY', meta, 'clients', -clients - orphans) end
if mode ~= 'count' and redis.call('EXISTS', polled) == 0 then
  redis.call('HSET', meta, 'clients', 0) -- an empty shard: the account is right again
end
if floor > floor_before then redis.call('HSET', meta, 'floor', floor) end
if leaving ~= '' and #errors > 0 then return { err = errors[2] } end
return { { clients }, mode == 'remove' and {} or each, errors }
