-- Claims one delivery of a hook with a rate limit, `snooze` or `on_change`.
-- KEYS: bitmap, circuit, probe, rate, snooze, change.
-- ARGV: 1 attempt, 2 token, 3 set, 4 lease (ms), 5 how long the state is kept (ms), 6 the hook's revision,
--       7 how long a probe may take (ms), 8 delivery id, 9 time between deliveries (us, 0: no rate limit),
--       10 burst (us), 11 snooze (ms), 12 value that on_change compares,
--       13 how long that is kept (ms), 14 the delivery's place in the rate limit (Unix ms, 0: none),
--       15 how late it may be for its place (ms).
-- Returns {answer, number, place in the rate limit (Unix ms)}.
-- A rate is `<next place>:<time of writing>:<next attempt>`, in Unix microseconds by Redis' clock. A delivery that is
-- late for its place is attempted if the attempts made leave room, and takes another place otherwise.

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
local interval, place, burst = tonumber(ARGV[9]), tonumber(ARGV[14]), tonumber(ARGV[10])
if interval > 0 then
  local micros = time[1] * 1000000 + time[2]
  local next, written, used = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+):(%d+):(%d+)$')
  -- A rate from the future was written before a step back of the clock.
  if not next or tonumber(written) > micros then next, used = 0, 0 end
  next, used = math.max(tonumber(next), micros), math.max(tonumber(used), micros)
  local limited = 0
  if place == 0 or now > place + ARGV[15] and used - micros > burst then
    if next - micros > burst then limited = math.ceil((next - micros) / 1000) end
    next = next + interval
  end
  if limited == 0 then used = used + interval end
  local left = math.ceil((math.max(next, used) - micros) / 1000)
  local rate = string.format('%.0f:%.0f:%.0f', next, micros, used)
  redis.call('SET', KEYS[4], rate, 'PX', left + 1000)
  if limited > 0 then return {LIMITED, limited, now + limited} end
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
