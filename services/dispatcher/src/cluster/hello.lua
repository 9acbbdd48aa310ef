-- Leaves a sign that whoever uses this Redis sees.
-- KEYS: sign. ARGV: how long it stays (ms).

redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
return 1
