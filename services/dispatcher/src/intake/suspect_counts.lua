-- Returns how often each message was started without an end, 0 for those that are not noted.
-- KEYS: hash of started counts. ARGV: messages.

local counts = redis.call('HMGET', KEYS[1], unpack(ARGV))
for i, count in ipairs(counts) do counts[i] = tonumber(count) or 0 end
return counts
