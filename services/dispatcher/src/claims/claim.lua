-- Claims one delivery of a hook with a rate limit, `snooze` or `on_change`.
-- KEYS: bitmap, circuit, probe, rate, snooze, change, and of these two what is in flight.
-- ARGV: 1 attempt, 2 token, 3 set, 4 lease (ms), 5 how long the state is kept (ms), 6 the hook's revision,
--       7 how long a probe may take (ms), 8 delivery id, 9 time between deliveries (us, 0: no rate limit),
--       10 burst (us), 11 '1' with snooze, 12 value that on_change compares,
--       13 how long a delivery is in flight after its attempt is due (ms),
--       14 the delivery's place in the rate limit (Unix ms, 0: none), 15 how late it may be for its place (ms).
-- Returns {answer, number, place in the rate limit (Unix ms)}.
-- Marks are `<value>:<delivery>`, of the delivery that was made last; with `snooze` the value is empty. While a delivery
-- that could suppress this one is in flight, which may fail, this one waits for it.
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
-- Another delivery's mark, and its value.
local function by_other(key)
  local value, owner = string.match(redis.call('GET', key) or '', '^(%x*):(%x+)$')
  if owner and owner ~= ARGV[8] then return owner, value end
end
local function waits_for(key)
  return {WAITING, math.max(redis.call('PTTL', key) - ARGV[13], 1000), 0}
end
local function suppressed(word)
  for at = 7, 8 do
    if redis.call('EXISTS', KEYS[at]) == 1 and not by_other(KEYS[at]) then redis.call('DEL', KEYS[at]) end
  end
  return {word, 0, 0}
end
if ARGV[11] == '1' then
  if by_other(KEYS[5]) then return suppressed(SNOOZED) end
  if by_other(KEYS[7]) then return waits_for(KEYS[7]) end
end
if ARGV[12] ~= '' then
  local _, made = by_other(KEYS[6])
  local other, next = by_other(KEYS[8])
  if other and (next == ARGV[12] or made == ARGV[12]) then return waits_for(KEYS[8]) end
  if made == ARGV[12] then return suppressed(UNCHANGED) end
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
if ARGV[11] == '1' then redis.call('SET', KEYS[7], ':' .. ARGV[8], 'PX', ARGV[13]) end
if ARGV[12] ~= '' then redis.call('SET', KEYS[8], ARGV[12] .. ':' .. ARGV[8], 'PX', ARGV[13]) end
return {ATTEMPT, wait and 1 or 0, 0}
