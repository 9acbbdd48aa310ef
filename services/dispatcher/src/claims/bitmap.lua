-- Reads and writes the bitmap of up to 128 deliveries, a string under one key.
--
-- A set of deliveries is 16 bytes, one bit each. The string begins with two sets: `seen` (those with any state)
-- and `done`. Records of 44 bytes follow:
--
--   4 bytes   attempt
--   8 bytes   claimed until, in Unix milliseconds by Redis' clock; 0: parked or buried after the attempt
--   16 bytes  token of the claim; zeros without a claim
--   16 bytes  set
--
-- A delivery is in at most one claim, and in none after it is done.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local NONE, WORDS, RECORD = string.rep('\0', 16), '>I4I4I4I4', '>I4I8c16c16'
local HEAD, SIZE, TOKEN, SET = 32, 44, 12, 28
local sub, pack, unpack = string.sub, struct.pack, struct.unpack

local function each(operation, a, b)
  local a1, a2, a3, a4 = unpack(WORDS, a)
  local b1, b2, b3, b4 = unpack(WORDS, b)
  return pack(WORDS, operation(a1, b1), operation(a2, b2), operation(a3, b3), operation(a4, b4))
end
local function both(a, b)
  if a == b then return a end
  if a == NONE or b == NONE then return NONE end
  return each(bit.band, a, b)
end
local function union(a, b)
  if a == b or b == NONE then return a end
  if a == NONE then return b end
  return each(bit.bor, a, b)
end
local function less(a, b)
  return each(bit.bxor, a, both(a, b))
end

-- Keeps a bitmap for `keep` milliseconds; one with records at least as long as before.
local function save(key, bitmap, keep)
  if #bitmap > HEAD then keep = math.max(keep, redis.call('PTTL', key)) end
  redis.call('SET', key, bitmap, 'PX', keep)
end

-- Parses a whole bitmap.
local function read(text)
  text = text or NONE .. NONE
  local bitmap = {seen = sub(text, 1, 16), done = sub(text, 17, HEAD)}
  for at = HEAD + 1, #text, SIZE do
    local attempt, till, token, set = unpack(RECORD, text, at)
    bitmap[#bitmap + 1] = {attempt = attempt, till = till, token = token, set = set}
  end
  return bitmap
end
local function write(key, bitmap, keep)
  local parts = {bitmap.seen, bitmap.done}
  for _, record in ipairs(bitmap) do
    if record.set ~= NONE then
      parts[#parts + 1] = pack(RECORD, record.attempt, record.till, record.token, record.set)
    end
  end
  save(key, table.concat(parts), keep)
end

-- Removes deliveries from all claims and, if `parked`, from the parked ones.
local function remove(bitmap, set, parked)
  for _, record in ipairs(bitmap) do
    if (parked or record.till > 0) and both(record.set, set) ~= NONE then
      record.set = less(record.set, set)
    end
  end
end
local function add(bitmap, attempt, till, token, set)
  bitmap.seen = union(bitmap.seen, set)
  for _, record in ipairs(bitmap) do
    if record.attempt == attempt and record.till == till and record.token == token then
      record.set = union(record.set, set)
      return
    end
  end
  bitmap[#bitmap + 1] = {attempt = attempt, till = till, token = token, set = set}
end
local function claim(bitmap, attempt, till, token, set)
  remove(bitmap, set)
  add(bitmap, attempt, till, token, set)
end
local function finish(bitmap, set)
  remove(bitmap, set, true)
  bitmap.seen, bitmap.done = union(bitmap.seen, set), union(bitmap.done, set)
end
-- Whether a record's deliveries have reached the end of the attempt.
local function is_past(record, attempt)
  return record.attempt > attempt or record.attempt == attempt and record.till == 0
end
