-- Opens a circuit, each time for twice as long. Returns how long it is open, in milliseconds.
-- KEYS: circuit (`<until>:<openings>:<revision>`, Unix milliseconds by Redis' clock), probe.
-- ARGV: the hook's revision, first time (ms), longest time (ms), how much longer the circuit is remembered (ms).

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local openings = 0
local circuit = redis.call('GET', KEYS[1])
if circuit then
  local till, count, revision = string.match(circuit, '^(%d+):(%d+):(%d+)$')
  if revision == ARGV[1] then
    -- More than the longest time was left by a step back of Redis' clock.
    local left = tonumber(till) - now
    if left > 0 and left <= tonumber(ARGV[3]) then return left end
    openings = tonumber(count)
  end
end
local wait = math.min(tonumber(ARGV[2]) * 2 ^ math.min(openings, 16), tonumber(ARGV[3]))
local till = string.format('%.0f', now + wait)
redis.call('SET', KEYS[1], till .. ':' .. (openings + 1) .. ':' .. ARGV[1], 'PX', wait + ARGV[4])
redis.call('DEL', KEYS[2])
return wait
