-- The state of a circuit. Returns -1 if it is closed, else for how long it is open (ms; 0: it may be probed).
-- KEYS: circuit (`<until>:<openings>:<revision>`, Unix milliseconds by Redis' clock). ARGV: the hook's revision.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local circuit = redis.call('GET', KEYS[1])
if not circuit then return -1 end
local till, revision = string.match(circuit, '^(%d+):%d+:(%d+)$')
if revision ~= ARGV[1] then return -1 end
return math.max(tonumber(till) - now, 0)
