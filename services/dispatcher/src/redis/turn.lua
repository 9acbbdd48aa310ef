-- Takes a turn unless another worker has it. Returns 1 or 0.
-- KEYS: turn. ARGV: the worker, how long the turn lasts (ms).

return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
