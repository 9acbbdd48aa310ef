-- Decides which deliveries may be claimed, and answers for the others.

local ATTEMPT, DONE, PARKED, BUSY, OPEN, LIMITED, SNOOZED, UNCHANGED = 0, 1, 2, 3, 4, 5, 6, 7
local PROBED, WAITING = 8, 9

-- Shortens claims that last longer than a lease: Redis' clock stepped back after they were made, and a dead
-- worker's claim would hold until the clock has caught up. Returns whether there were any.
local function shorten(bitmap, lease)
  local shortened = false
  for _, record in ipairs(bitmap) do
    if record.till > now + lease then
      record.till, shortened = now + lease, true
    end
  end
  return shortened
end

-- Returns the deliveries of a set that may be claimed for an attempt, and answers for the others.
local function claimable(bitmap, set, attempt)
  local others = {}
  local function answer(some, word, number)
    if some == NONE then return end
    others[#others + 1] = {word = word, number = number, set = some}
    set = less(set, some)
  end
  answer(both(set, bitmap.done), DONE, 0)
  for _, record in ipairs(bitmap) do
    local some = both(set, record.set)
    if record.till > now then
      answer(some, BUSY, record.till - now)
    elseif is_past(record, attempt) then
      answer(some, PARKED, 0)
    end
  end
  return set, others
end

-- Returns for how long a circuit is open: 0 if it may be probed, nil if it is closed. An impossibly long time was
-- left by a step back of Redis' clock.
local function open(key, revision)
  local circuit = redis.call('GET', key)
  if not circuit then return end
  local till, opened = string.match(circuit, '^(%d+):%d+:(%d+)$')
  if opened ~= revision then return end
  local wait = math.max(tonumber(till) - now, 0)
  return wait > LONGEST_OPEN and 0 or wait
end
