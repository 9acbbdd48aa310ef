-- Lets an open circuit be probed now. Returns 1 if there is one, else 0.
-- KEYS: circuit (`<until>:<openings>:<revision>`, Unix milliseconds by Redis' clock).
-- ARGV: the hook's revision, how much longer the circuit is remembered (ms).

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local circuit = redis.call('GET', KEYS[1])
if not circuit then return 0 end
local openings, revision = string.match(circuit, '^%d+:(%d+):(%d+)$')
if revision ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', now) .. ':' .. openings .. ':' .. revision, 'PX', ARGV[2])
return 1
