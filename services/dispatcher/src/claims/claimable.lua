-- Which deliveries may be claimed, and the answers for the others.

local ATTEMPT, DONE, PARKED, BUSY, OPEN, LIMITED, SNOOZED, UNCHANGED = 0, 1, 2, 3, 4, 5, 6, 7
local PROBED = 8

-- Shortens claims that last longer than a lease: Redis' clock stepped back after they were made, and a
-- dead worker's would hold until it is back where it was. Returns whether there were any.
local function shorten(page, lease)
  local shortened = false
  for _, record in ipairs(page) do
    if record.till > now + lease then
      record.till, shortened = now + lease, true
    end
  end
  return shortened
end

-- Returns those of a set that may be claimed for an attempt, and answers for the others.
local function claimable(page, set, attempt)
  local others = {}
  local function tell(some, word, number)
    if some == NONE then return end
    others[#others + 1] = {word = word, number = number, set = some}
    set = less(set, some)
  end
  tell(both(set, page.done), DONE, 0)
  for _, record in ipairs(page) do
    local some = both(set, record.set)
    if record.till > now then
      tell(some, BUSY, record.till - now)
    elseif is_past(record, attempt) then
      tell(some, PARKED, 0)
    end
  end
  return set, others
end

-- Returns for how long a circuit is open: 0 if it may be probed, nil if it is closed. One that is open
-- for longer than any opens was opened before Redis' clock stepped back.
local function open(key, revision)
  local circuit = redis.call('GET', key)
  if not circuit then return end
  local till, opened = string.match(circuit, '^(%d+):%d+:(%d+)$')
  if opened ~= revision then return end
  local wait = math.max(tonumber(till) - now, 0)
  return wait > LONGEST_OPEN and 0 or wait
end
