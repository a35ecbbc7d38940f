#!lua flags=allow-oom
-- Forget the clients of the named channels that stopped checking: a check that came in between stays.
-- Or forget the one that leaves.
--
-- KEYS  updated, polled, trimmed, meta   see chat/_keys.py
--       log, seen, read   of each channel, in the order of the names
-- ARGV  client_timeout    ms without a check
--       mode              'remove'; 'tell': and whom; 'count': change nothing
--       budget            clients to forget at most in this call; the rest stays due
--       leaving           name of the client that leaves, '' for those that expired
--       name...           of the channels
-- Returns {clients} forgotten; to 'count' followed by those of each name; to 'tell' by a list of their names for each
local updated, polled, trimmed, meta = unpack(KEYS, 1, 4)
local client_timeout, mode, budget, leaving = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expired_ms = now_ms - client_timeout

local clients, orphans, floor, each = 0, 0, 0, {}
for i = 5, #ARGV do
  local channel = ARGV[i]
  local log, seen, read = unpack(KEYS, 3 * i - 10, 3 * i - 8)
  if mode == 'count' then
    each[i - 4] = redis.call('ZCOUNT', seen, '-inf', expired_ms)
    clients = clients + each[i - 4]
  else
    local names = { leaving }
    if leaving == '' then
      names = redis.call('ZRANGE', seen, '-inf', expired_ms, 'BYSCORE', 'LIMIT', 0, budget - clients)
    end
    local traces = 0
    if #names > 0 then
      local forgotten = redis.call('HDEL', read, unpack(names))
      clients = clients + forgotten
      traces = forgotten + redis.call('ZREM', seen, unpack(names))
    end
    if mode == 'tell' then each[i - 4] = names end
    local eldest = redis.call('ZRANGE', seen, 0, 0, 'WITHSCORES')
    if #eldest > 0 then
      redis.call('ZADD', polled, eldest[2], channel)
    else
      local left = redis.call('HLEN', read) -- positions whose `seen` was lost
      traces, orphans = traces + left + redis.call('ZREM', polled, channel), orphans + left
      redis.call('UNLINK', read)
      if redis.call('EXISTS', log) == 0 and not redis.call('ZSCORE', updated, channel) then
        -- The channel itself went before its last client: nothing of it stays but the shard's floor.
        local last = tonumber(redis.call('HGET', trimmed, channel))
        if not last and traces > 0 then last = now_ms end -- as in send.lua, where it was lost; a repeat finds no traces
        floor = math.max(floor, last or 0)
        redis.call('HDEL', trimmed, channel)
      end
    end
    if clients >= budget then break end
  end
end
if clients + orphans > 0 and mode ~= 'count' then redis.call('HINCRBY', meta, 'clients', -clients - orphans) end
if mode ~= 'count' and redis.call('EXISTS', polled) == 0 then
  redis.call('HSET', meta, 'clients', 0) -- an empty shard: the account is right again
end
if floor > tonumber(redis.call('HGET', meta, 'floor') or 0) then redis.call('HSET', meta, 'floor', floor) end
return { clients, unpack(each) }
