-- Claims this Redis for a cluster, unless it belongs to another one. Returns the cluster that it belongs to.
-- KEYS: identity. ARGV: the cluster, whether it takes the Redis from another one (1 or 0).

if ARGV[2] == '1' then
  redis.call('SET', KEYS[1], ARGV[1])
  return ARGV[1]
end
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
