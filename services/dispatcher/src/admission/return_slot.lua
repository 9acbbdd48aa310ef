-- Takes a hook's next free slot; after the last one they start over. Returns the time until it, in milliseconds.
-- KEYS: slot. ARGV: time between slots (us), time until the first (ms), time from the first to the last (ms).

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local first = now + ARGV[2] * 1000
local slot = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), first)
if slot - first >= ARGV[3] * 1000 then slot = first end
local next = slot + ARGV[1]
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000) + 1000)
return math.ceil((slot - now) / 1000)
