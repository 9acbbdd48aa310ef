-- Whether a sign is there. Returns 1 or 0.
-- KEYS: sign.

return redis.call('EXISTS', KEYS[1])
