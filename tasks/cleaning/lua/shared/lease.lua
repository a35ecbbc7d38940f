-- Renew the lease of a run in a shard, or end the script: only the run that holds the lease removes.
--
-- Needs    KEYS[1]         the lease
--          ARGV[1]         its owner, the token of the run
--          ARGV[2]         ms for which it is renewed
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
