-- Claims one delivery of a hook with a rate limit, `snooze` or `on_change`.
-- KEYS: bitmap, circuit, probe, rate, snooze, change.
-- ARGV: 1 attempt, 2 token, 3 set, 4 lease (ms), 5 how long the state is kept (ms), 6 the hook's revision,
--       7 how long a probe may take (ms), 8 delivery id, 9 time between deliveries (us, 0: no rate limit),
--       10 burst (us), 11 snooze (ms), 12 value that on_change compares,
--       13 how long that is kept (ms), 14 the delivery's place in the rate limit (Unix ms, 0: none),
--       15 how late it may be for its place (ms).
-- Returns {answer, number, place in the rate limit (Unix ms)}.
-- A rate is `<next place>:<time of writing>`, in Unix microseconds by Redis' clock.

local attempt, token, set = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local bitmap = read(redis.call('GET', KEYS[1]))
local shortened = shorten(bitmap, tonumber(ARGV[4]))
local left, others = claimable(bitmap, set, attempt)
if left == NONE then
  if shortened then write(KEYS[1], bitmap, tonumber(ARGV[5])) end
  return {others[1].word, others[1].number, 0}
end
local wait = open(KEYS[2], ARGV[6])
if wait and wait > 0 then return {OPEN, wait, 0} end
if attempt == 1 and ARGV[11] ~= '0' then
  local owner = redis.call('GET', KEYS[5])
  if owner and owner ~= ARGV[8] then return {SNOOZED, 0, 0} end
end
if attempt == 1 and ARGV[12] ~= '' then
  local seen = redis.call('GET', KEYS[6])
  if seen then
    local value, owner = string.match(seen, '^(%x+):(%x+)$')
    if value == ARGV[12] and owner ~= ARGV[8] then return {UNCHANGED, 0, 0} end
  end
end
-- Before a place in the rate limit is taken, of which a delivery that may not probe has no use.
if wait and redis.call('EXISTS', KEYS[3]) == 1 then return {PROBED, 1000, 0} end
local interval, place = tonumber(ARGV[9]), tonumber(ARGV[14])
if interval > 0 and (place == 0 or now > place + ARGV[15]) then
  local micros = time[1] * 1000000 + time[2]
  local free = micros
  local next, written = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+):(%d+)$')
  -- A rate from the future was written before a step back of the clock.
  if next and tonumber(written) <= micros then free = math.max(tonumber(next), micros) end
  next = string.format('%.0f:%.0f', free + interval, micros)
  redis.call('SET', KEYS[4], next, 'PX', math.ceil((free + interval - micros) / 1000) + 1000)
  if free - micros > tonumber(ARGV[10]) then
    local wait = math.ceil((free - micros) / 1000)
    return {LIMITED, wait, now + wait}
  end
end
if wait and not redis.call('SET', KEYS[3], token, 'NX', 'PX', ARGV[7]) then
  return {PROBED, 1000, 0}
end
claim(bitmap, attempt, now + ARGV[4], token, set)
write(KEYS[1], bitmap, tonumber(ARGV[5]))
if attempt == 1 then
  if ARGV[11] ~= '0' then redis.call('SET', KEYS[5], ARGV[8], 'PX', ARGV[11]) end
  if ARGV[12] ~= '' then
    redis.call('SET', KEYS[6], ARGV[12] .. ':' .. ARGV[8], 'PX', ARGV[13])
  end
end
return {ATTEMPT, wait and 1 or 0, 0}
