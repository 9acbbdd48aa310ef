-- Claims deliveries of hooks without rate limit, `snooze` and `on_change`, group by group. All groups of a
-- hook have the same revision.
-- KEYS: bitmap, circuit, probe of each group.
-- ARGV: lease (ms), how long the state is kept (ms), how long a probe may take (ms); then of each group the
--       hook's revision, attempt, token, set.
-- Returns {group (from 1), answer, number, set}, except for plain attempts.

local till, keep, answers = now + ARGV[1], tonumber(ARGV[2]), {}
local circuit, wait

local function first(set)
  for at = 1, #set do
    local byte, high = string.byte(set, at), 128
    if byte > 0 then
      while high > byte do high = high / 2 end
      return sub(NONE, 1, at - 1) .. string.char(high) .. sub(NONE, at + 1)
    end
  end
end

-- Returns the deliveries of a set that pass a circuit that is not closed: one, if no other probes it.
local function let_through(set, probe, token, others)
  local function answer(some, word, number)
    others[#others + 1] = {word = word, number = number, set = some}
  end
  if wait > 0 then
    answer(set, OPEN, wait)
    return NONE
  end
  local one = NONE
  if redis.call('SET', probe, token, 'NX', 'PX', ARGV[3]) then
    one = first(set)
    answer(one, ATTEMPT, 1)
    set = less(set, one)
  end
  if set ~= NONE then answer(set, PROBED, 1000) end
  return one
end

for group = 1, #KEYS / 3 do
  local key, probe, at = KEYS[3 * group - 2], KEYS[3 * group], 4 * group
  local attempt, token, set = tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  if KEYS[3 * group - 1] ~= circuit then
    circuit = KEYS[3 * group - 1]
    wait = open(circuit, ARGV[at])
  end
  local text = redis.call('GET', key)
  local record = pack(RECORD, attempt, till, token, set)
  if wait == nil and not text then
    redis.call('SET', key, set .. NONE .. record, 'PX', keep)
  elseif wait == nil and both(sub(text, 1, 16), set) == NONE then
    save(key, union(sub(text, 1, 16), set) .. sub(text, 17) .. record, keep)
  else
    local bitmap = read(text)
    local shortened = shorten(bitmap, tonumber(ARGV[1]))
    local left, others = claimable(bitmap, set, attempt)
    if wait and left ~= NONE then left = let_through(left, probe, token, others) end
    if left ~= NONE then claim(bitmap, attempt, till, token, left) end
    if left ~= NONE or shortened then write(key, bitmap, keep) end
    for _, other in ipairs(others) do
      answers[#answers + 1] = {group, other.word, other.number, other.set}
    end
  end
end
return answers
