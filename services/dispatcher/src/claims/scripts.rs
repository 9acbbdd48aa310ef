//! The scripts that Redis runs, each in one step. All keys of a hook share a hash tag, so that a
//! Redis Cluster keeps them together.
//!
//! A page is the state of up to 128 deliveries in one text. A set of them is 16 bytes, a bit each. The
//! page begins with two sets, what anything is known of and what is done; then come records of 44 bytes:
//!
//! | bytes | |
//! | --- | --- |
//! | 4 | attempt |
//! | 8 | until when the claim holds, 0: not claimed but parked (or buried) after the attempt |
//! | 16 | token of the claim, 0 where there is none |
//! | 16 | set |
//!
//! A delivery is in one claim at most, and in none once it is done. What nothing is known of is claimed,
//! and what is wholly the caller's is renewed and ended, without a look at the others' records.
//!
//! A circuit is `<until>:<openings>:<revision>`. Times are in Unix milliseconds by Redis's clock, in the
//! rate's key in microseconds.

use redis::Script;

/// Pages, and sets of their deliveries.
const PAGES: &str = r"
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

-- What has no record is kept for that long, the rest not for less than before.
local function save(key, page, keep)
  if #page > HEAD then keep = math.max(keep, redis.call('PTTL', key)) end
  redis.call('SET', key, page, 'PX', keep)
end

-- A page in full.
local function read(text)
  text = text or NONE .. NONE
  local page = {seen = sub(text, 1, 16), done = sub(text, 17, HEAD)}
  for at = HEAD + 1, #text, SIZE do
    local attempt, till, token, set = unpack(RECORD, text, at)
    page[#page + 1] = {attempt = attempt, till = till, token = token, set = set}
  end
  return page
end
local function write(key, page, keep)
  local parts = {page.seen, page.done}
  for _, record in ipairs(page) do
    if record.set ~= NONE then
      parts[#parts + 1] = pack(RECORD, record.attempt, record.till, record.token, record.set)
    end
  end
  save(key, table.concat(parts), keep)
end

-- Takes deliveries out of all claims, and out of what is parked where that is said.
local function remove(page, set, parked)
  for _, record in ipairs(page) do
    if (parked or record.till > 0) and both(record.set, set) ~= NONE then
      record.set = less(record.set, set)
    end
  end
end
local function add(page, attempt, till, token, set)
  page.seen = union(page.seen, set)
  for _, record in ipairs(page) do
    if record.attempt == attempt and record.till == till and record.token == token then
      record.set = union(record.set, set)
      return
    end
  end
  page[#page + 1] = {attempt = attempt, till = till, token = token, set = set}
end
local function claim(page, attempt, till, token, set)
  remove(page, set)
  add(page, attempt, till, token, set)
end
local function finish(page, set)
  remove(page, set, true)
  page.seen, page.done = union(page.seen, set), union(page.done, set)
end
-- Whether a record's deliveries have got as far as the attempt, or farther.
local function is_past(record, attempt)
  return record.attempt > attempt or record.attempt == attempt and record.till == 0
end
";

/// What may be claimed.
const CLAIMABLE: &str = r"
local ATTEMPT, DONE, PARKED, BUSY, OPEN, LIMITED, SNOOZED, UNCHANGED = 0, 1, 2, 3, 4, 5, 6, 7
local PROBED = 8

-- What of a set may be claimed for an attempt, and what is said of the rest.
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

-- For how long a circuit is open: 0 if it may be probed, nothing if it is closed.
local function open(key, revision)
  local circuit = redis.call('GET', key)
  if not circuit then return end
  local till, opened = string.match(circuit, '^(%d+):%d+:(%d+)$')
  if opened == revision then return math.max(tonumber(till) - now, 0) end
end
";

/// The claim of a delivery with limits or marks. Keys: page, circuit, probe, rate, snooze, change.
/// Arguments: attempt, token, set, lease, how long the state is kept, the hook's revision, how long a
/// probe may take, delivery id, microseconds between deliveries (0: no limit), microseconds that may be
/// used up at once, snooze, on_change's value, how long that is kept.
const CLAIM: &str = r"
local attempt, token, set = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local page = read(redis.call('GET', KEYS[1]))
local left, others = claimable(page, set, attempt)
if left == NONE then return {others[1].word, others[1].number} end
local wait = open(KEYS[2], ARGV[6])
if wait and wait > 0 then return {OPEN, wait} end
if attempt == 1 and ARGV[11] ~= '0' then
  local owner = redis.call('GET', KEYS[5])
  if owner and owner ~= ARGV[8] then return {SNOOZED, 0} end
end
if attempt == 1 and ARGV[12] ~= '' then
  local seen = redis.call('GET', KEYS[6])
  if seen then
    local value, owner = string.match(seen, '^(%x+):(%x+)$')
    if value == ARGV[12] and owner ~= ARGV[8] then return {UNCHANGED, 0} end
  end
end
local interval = tonumber(ARGV[9])
if interval > 0 then
  local micros = time[1] * 1000000 + time[2]
  local free = math.max(tonumber(redis.call('GET', KEYS[4]) or '0'), micros)
  local next = string.format('%.0f', free + interval)
  redis.call('SET', KEYS[4], next, 'PX', math.ceil((free + interval - micros) / 1000) + 1000)
  if free - micros > tonumber(ARGV[10]) then
    return {LIMITED, math.ceil((free - micros) / 1000)}
  end
end
if wait and not redis.call('SET', KEYS[3], token, 'NX', 'PX', ARGV[7]) then
  return {PROBED, 1000}
end
claim(page, attempt, now + ARGV[4], token, set)
write(KEYS[1], page, tonumber(ARGV[5]))
if attempt == 1 then
  if ARGV[11] ~= '0' then redis.call('SET', KEYS[5], ARGV[8], 'PX', ARGV[11]) end
  if ARGV[12] ~= '' then
    redis.call('SET', KEYS[6], ARGV[12] .. ':' .. ARGV[8], 'PX', ARGV[13])
  end
end
return {ATTEMPT, wait and 1 or 0}
";

/// Claims of hooks that have neither limits nor marks, group by group; all of a hook's are of one revision.
/// Keys of each: page, circuit, probe.
/// Arguments: lease, how long the state is kept, how long a probe may take, and of each group the hook's
/// revision, attempt, token, set. The answer says of deliveries that are not simply to be attempted: of
/// which group, from 1, a word and its number, and which they are.
const CLAIMS: &str = r"
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

-- What a circuit that is not closed lets through of a set: one that probes it, if nobody does.
local function let_through(set, probe, token, others)
  local function tell(some, word, number)
    others[#others + 1] = {word = word, number = number, set = some}
  end
  if wait > 0 then
    tell(set, OPEN, wait)
    return NONE
  end
  local one = NONE
  if redis.call('SET', probe, token, 'NX', 'PX', ARGV[3]) then
    one = first(set)
    tell(one, ATTEMPT, 1)
    set = less(set, one)
  end
  if set ~= NONE then tell(set, PROBED, 1000) end
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
    local page = read(text)
    local left, others = claimable(page, set, attempt)
    if wait and left ~= NONE then left = let_through(left, probe, token, others) end
    if left ~= NONE then
      claim(page, attempt, till, token, left)
      write(key, page, keep)
    end
    for _, other in ipairs(others) do
      answers[#answers + 1] = {group, other.word, other.number, other.set}
    end
  end
end
return answers
";

/// Which deliveries of a set are the caller's: it holds the claim, or nobody does and the caller's attempt
/// is the next (it was made while Redis was away).
const OWN: &str = r"
local function own(page, attempt, token, set)
  set = less(set, page.done)
  for _, record in ipairs(page) do
    if record.token ~= token and (record.till > now or is_past(record, attempt))
      and both(set, record.set) ~= NONE
    then
      set = less(set, record.set)
    end
  end
  return set
end

-- The page without a set in the claim of a token, if that holds all of it: nothing else is looked at then.
local function take(text, token, set)
  local at = text and string.find(text, token, HEAD + 1, true)
  if not at or (at - HEAD - 1) % SIZE ~= TOKEN then return end
  local record = at - TOKEN
  local held = sub(text, record + SET, record + SIZE - 1)
  if both(held, set) ~= set then return end
  local rest = ''
  if held ~= set then rest = sub(text, record, record + SET - 1) .. less(held, set) end
  return sub(text, 1, record - 1) .. rest .. sub(text, record + SIZE)
end
";

/// Deliveries that are done, were no probes and have no marks, group by group. Keys: the page of each.
/// Arguments: how long they are remembered, and of each group attempt, token, set. The answer says which
/// were not the caller's: of which group, from 1, and which they are.
const DONE: &str = r"
local keep, answers = tonumber(ARGV[1]), {}

for group, key in ipairs(KEYS) do
  local attempt, token, set = tonumber(ARGV[3 * group - 1]), ARGV[3 * group], ARGV[3 * group + 1]
  local text = redis.call('GET', key)
  -- Before a later attempt it was parked, which is to be forgotten.
  local taken = attempt == 1 and take(text, token, set)
  if taken then
    local done = union(sub(taken, 17, HEAD), set)
    save(key, sub(taken, 1, 16) .. done .. sub(taken, HEAD + 1), keep)
  else
    local page = read(text)
    local mine = own(page, attempt, token, set)
    if mine ~= set then answers[#answers + 1] = {group, less(set, mine)} end
    if mine ~= NONE then
      finish(page, mine)
      write(key, page, keep)
    end
  end
end
return answers
";

/// Lengthens claims, group by group. Keys: the page of each. Arguments: lease, how long the state is kept,
/// and of each group attempt, token, set. The answer is that of [`DONE`].
const RENEW: &str = r"
local till, keep, answers = now + ARGV[1], tonumber(ARGV[2]), {}
for group, key in ipairs(KEYS) do
  local attempt, token, set = tonumber(ARGV[3 * group]), ARGV[3 * group + 1], ARGV[3 * group + 2]
  local text = redis.call('GET', key)
  local taken = take(text, token, set)
  if taken then
    save(key, taken .. pack(RECORD, attempt, till, token, set), keep)
  else
    local page = read(text)
    local mine = own(page, attempt, token, set)
    if mine ~= set then answers[#answers + 1] = {group, less(set, mine)} end
    if mine ~= NONE then
      claim(page, attempt, till, token, mine)
      write(key, page, keep)
    end
  end
end
return answers
";

/// Ends one claim, and says whether it was the caller's. Keys: page, circuit, probe, snooze, change, slot.
/// Arguments: attempt, token, set, how it ends (`done`, `parked` or `released`), how long that is kept, what
/// a probe does (`closes` the circuit, `ends` without an attempt), delivery id, how long the silence of
/// `snooze` lasts from now on, whether the delivery's own marks are to be forgotten.
const FINISH: &str = r"
local attempt, token, set = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local page = read(redis.call('GET', KEYS[1]))
if own(page, attempt, token, set) == NONE then return 0 end
if ARGV[4] == 'done' then
  finish(page, set)
elseif ARGV[4] == 'parked' then
  remove(page, set, true)
  add(page, attempt, 0, NONE, set)
else
  remove(page, set, attempt > 1)
  if attempt > 1 then add(page, attempt - 1, 0, NONE, set) end
end
write(KEYS[1], page, tonumber(ARGV[5]))
if ARGV[6] == 'closes' then redis.call('DEL', KEYS[2], KEYS[3], KEYS[6]) end
if ARGV[6] == 'ends' and redis.call('GET', KEYS[3]) == token then redis.call('DEL', KEYS[3]) end
if ARGV[8] ~= '0' then redis.call('SET', KEYS[4], ARGV[7], 'PX', ARGV[8]) end
if ARGV[9] == '1' then
  if redis.call('GET', KEYS[4]) == ARGV[7] then redis.call('DEL', KEYS[4]) end
  local seen = redis.call('GET', KEYS[5])
  if seen and string.match(seen, ':(%x+)$') == ARGV[7] then redis.call('DEL', KEYS[5]) end
end
return 1
";

/// Opens a circuit, for twice as long each time, and says for how long it is open. Keys: circuit,
/// probe. Arguments: the hook's revision, first and longest time, how much longer it is remembered.
const OPEN: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local openings = 0
local circuit = redis.call('GET', KEYS[1])
if circuit then
  local till, count, revision = string.match(circuit, '^(%d+):(%d+):(%d+)$')
  if revision == ARGV[1] then
    if tonumber(till) > now then return tonumber(till) - now end
    openings = tonumber(count)
  end
end
local wait = math.min(tonumber(ARGV[2]) * 2 ^ math.min(openings, 16), tonumber(ARGV[3]))
local till = string.format('%.0f', now + wait)
redis.call('SET', KEYS[1], till .. ':' .. (openings + 1) .. ':' .. ARGV[1], 'PX', wait + ARGV[4])
redis.call('DEL', KEYS[2])
return wait
";

/// Takes a hook's next free slot, and says in how many milliseconds it is. After the last one it
/// begins with the first again. Arguments: microseconds between slots, milliseconds until the
/// first, milliseconds from the first to the last.
const SLOT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local first = now + ARGV[2] * 1000
local slot = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), first)
if slot - first >= ARGV[3] * 1000 then slot = first end
local next = slot + ARGV[1]
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000) + 1000)
return math.ceil((slot - now) / 1000)
";

/// Notes that a worker lives, and says how many do. Arguments: the worker, how long it is believed.
const WORKERS: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
";

/// Takes a turn, if nobody has it. Arguments: the worker, how long the turn lasts.
const TURN: &str = r"
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
";

/// What the scripts answer; the same numbers as in [`CLAIMABLE`].
pub(super) mod word {
    /// Make the attempt. With it: whether it probes the circuit.
    pub(crate) const ATTEMPT: u8 = 0;
    /// It is done.
    pub(crate) const DONE: u8 = 1;
    /// It is parked or buried.
    pub(crate) const PARKED: u8 = 2;
    /// Another worker has it. With it: for how many milliseconds.
    pub(crate) const BUSY: u8 = 3;
    /// The circuit is open. With it: for how many milliseconds.
    pub(crate) const OPEN: u8 = 4;
    /// The rate limit is used up. With it: for how many milliseconds.
    pub(crate) const LIMITED: u8 = 5;
    /// `snooze` is silent.
    pub(crate) const SNOOZED: u8 = 6;
    /// `on_change` sees none.
    pub(crate) const UNCHANGED: u8 = 7;
    /// Another delivery probes the circuit. With it: for how many milliseconds to leave it alone.
    pub(crate) const PROBED: u8 = 8;
}

/// All scripts.
pub(super) struct Scripts {
    pub(super) claim: Script,
    pub(super) claims: Script,
    pub(super) renew: Script,
    pub(super) finish: Script,
    pub(super) done: Script,
    pub(super) open: Script,
    pub(super) slot: Script,
    pub(super) workers: Script,
    pub(super) turn: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            claim: script(&[PAGES, CLAIMABLE, CLAIM]),
            claims: script(&[PAGES, CLAIMABLE, CLAIMS]),
            renew: script(&[PAGES, OWN, RENEW]),
            finish: script(&[PAGES, OWN, FINISH]),
            done: script(&[PAGES, OWN, DONE]),
            open: script(&[OPEN]),
            slot: script(&[SLOT]),
            workers: script(&[WORKERS]),
            turn: script(&[TURN]),
        }
    }
}

fn script(parts: &[&str]) -> Script {
    Script::new(&parts.concat())
}
