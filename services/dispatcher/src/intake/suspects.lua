-- Notes that messages are started, or that they have ended.
-- KEYS: hash of started counts. ARGV: how long it is kept (ms), then a message and its count (0: it has ended) each.

for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
