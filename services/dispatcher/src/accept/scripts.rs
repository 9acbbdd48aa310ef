//! The scripts that Redis runs, each in one step. All keys of a hook share a hash tag, so that a
//! Redis Cluster keeps them together.
//!
//! A delivery's state is `D` (done), `P<attempt>` (parked or buried after it), or
//! `L<attempt>:<until>:<token>` (claimed). It is a field of a hash. Where the event's id is its place in
//! the stream, the hash is that of its page, so that one call sees to many deliveries; and done is a bit
//! in the page's bitmap instead, which costs far less than a field. Where it is not, the hash is the
//! delivery's own. A circuit is `<until>:<openings>:<revision>`. Times are in Unix milliseconds by
//! Redis's clock, in the rate's key in microseconds.

use redis::Script;

/// The time, what a delivery and a circuit say, and the answers.
const COMMON: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ATTEMPT, DONE, PARKED, BUSY, OPEN, LIMITED, SNOOZED, UNCHANGED = 0, 1, 2, 3, 4, 5, 6, 7
local PROBED = 8

-- Why an attempt is not to be made; nothing: it is.
local function known(state, done, attempt)
  if done then return DONE, 0 end
  if not state then return end
  local kind, number, till = read(state)
  if kind == 'D' then return DONE, 0 end
  if kind == 'L' and till > now then return BUSY, till - now end
  if number > attempt or kind == 'P' and number == attempt then return PARKED, 0 end
end

-- For how long a circuit is open: 0 if it may be probed, nothing if it is closed.
local function open(key, revision)
  local circuit = redis.call('GET', key)
  if not circuit then return end
  local till, opened = string.match(circuit, '^(%d+):%d+:(%d+)$')
  if opened == revision then return math.max(tonumber(till) - now, 0) end
end
";

/// States of deliveries. Hash and map are the same key where there is no bitmap.
const STATES: &str = r"
-- Kind, attempt, until and token. Claims that were made together have the same state.
local seen = {}
local function read(state)
  local parts = seen[state]
  if not parts then
    local kind, attempt, till, token = string.match(state, '^(%u)(%d*):?(%d*):?(.*)$')
    parts = {kind, tonumber(attempt), tonumber(till), token}
    seen[state] = parts
  end
  return parts[1], parts[2], parts[3], parts[4]
end
local byte, floor = string.byte, math.floor
local function is_set(map, bit)
  local eight = map and byte(map, floor(bit / 8) + 1)
  return eight and floor(eight / 2 ^ (7 - bit % 8)) % 2 == 1
end
local function state_of(hash, map, field)
  local done = map ~= hash and redis.call('GETBIT', map, field) == 1
  return redis.call('HGET', hash, field), done
end
-- The same for the fields of one page among the arguments.
local function states_of(hash, map, first, last)
  local bits = map ~= hash and redis.call('GET', map)
  return redis.call('HMGET', hash, unpack(ARGV, first, last)), bits
end
local function keep_for(key, time)
  if redis.call('PTTL', key) < tonumber(time) then redis.call('PEXPIRE', key, time) end
end
";

/// The claim of a delivery with limits or marks. Keys: hash, map, circuit, probe, rate, snooze, change.
/// Arguments: field, attempt, token, lease, how long the state is kept, the hook's revision, how long a
/// probe may take, delivery id, microseconds between deliveries (0: no limit), microseconds that may be
/// used up at once, snooze, on_change's value, how long that is kept.
const CLAIM: &str = r"
local attempt = tonumber(ARGV[2])
local state, done = state_of(KEYS[1], KEYS[2], ARGV[1])
local word, number = known(state, done, attempt)
if word then return {word, number} end
local wait = open(KEYS[3], ARGV[6])
if wait and wait > 0 then return {OPEN, wait} end
if attempt == 1 and ARGV[11] ~= '0' then
  local owner = redis.call('GET', KEYS[6])
  if owner and owner ~= ARGV[8] then return {SNOOZED, 0} end
end
if attempt == 1 and ARGV[12] ~= '' then
  local seen = redis.call('GET', KEYS[7])
  if seen then
    local value, owner = string.match(seen, '^(%x+):(%x+)$')
    if value == ARGV[12] and owner ~= ARGV[8] then return {UNCHANGED, 0} end
  end
end
local interval = tonumber(ARGV[9])
if interval > 0 then
  local micros = time[1] * 1000000 + time[2]
  local free = math.max(tonumber(redis.call('GET', KEYS[5]) or '0'), micros)
  local next = string.format('%.0f', free + interval)
  redis.call('SET', KEYS[5], next, 'PX', math.ceil((free + interval - micros) / 1000) + 1000)
  if free - micros > tonumber(ARGV[10]) then
    return {LIMITED, math.ceil((free - micros) / 1000)}
  end
end
if wait and not redis.call('SET', KEYS[4], ARGV[3], 'NX', 'PX', ARGV[7]) then
  return {PROBED, 1000}
end
local till = string.format('%.0f', now + ARGV[4])
redis.call('HSET', KEYS[1], ARGV[1], 'L' .. attempt .. ':' .. till .. ':' .. ARGV[3])
keep_for(KEYS[1], ARGV[5])
if attempt == 1 then
  if ARGV[11] ~= '0' then redis.call('SET', KEYS[6], ARGV[8], 'PX', ARGV[11]) end
  if ARGV[12] ~= '' then
    redis.call('SET', KEYS[7], ARGV[12] .. ':' .. ARGV[8], 'PX', ARGV[13])
  end
end
return {ATTEMPT, wait and 1 or 0}
";

/// Claims of one hook that has neither limits nor marks. Keys: circuit, probe, hash and map of each page.
/// Arguments: lease, how long the state is kept, the hook's revision, how long a probe may take, token,
/// number of deliveries, how many of them are in each page, and then, page by page, all their fields and
/// all their attempts. The answer has three numbers of each delivery that is not simply to be attempted:
/// which one, from 1, a word and its number.
const CLAIMS: &str = r"
local lease, keep, token, count = tonumber(ARGV[1]), ARGV[2], ARGV[5], tonumber(ARGV[6])
local tail = ':' .. string.format('%.0f', now + lease) .. ':' .. token
local wait = open(KEYS[1], ARGV[3])
local pages, answers, claims = #KEYS / 2 - 1, {}, {}
local at = 6 + pages
for page = 1, pages do
  local hash, map, last = KEYS[1 + 2 * page], KEYS[2 + 2 * page], at + ARGV[6 + page]
  local states, bits = states_of(hash, map, at + 1, last)
  local list, taken = {}, {}
  for arg = at + 1, last do
    local field, attempt = ARGV[arg], ARGV[arg + count]
    local word, number = known(states[arg - at], is_set(bits, field), tonumber(attempt))
    if not word then
      if taken[field] then
        word, number = BUSY, lease
      elseif wait and wait > 0 then
        word, number = OPEN, wait
      elseif wait and not redis.call('SET', KEYS[2], token, 'NX', 'PX', ARGV[4]) then
        word, number = PROBED, 1000
      else
        local claim = claims[attempt] or 'L' .. attempt .. tail
        claims[attempt], taken[field] = claim, true
        list[#list + 1], list[#list + 2] = field, claim
        if wait then word, number = ATTEMPT, 1 end
      end
    end
    if word then
      local n = #answers
      answers[n + 1], answers[n + 2], answers[n + 3] = arg - 6 - pages, word, number
    end
  end
  if #list > 0 then
    redis.call('HSET', hash, unpack(list))
    keep_for(hash, keep)
  end
  at = last
end
return answers
";

/// Whether a delivery is the caller's: it holds the claim, or nobody does and the caller's attempt is
/// the next (it was made while Redis was away).
const OWN: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function mine(state, done, attempt, token)
  if state then
    local kind, number, till, holder = read(state)
    if kind == 'D' or kind == 'P' and number >= attempt then return false end
    if kind == 'L' then
      if holder == token then return true end
      if till > now or number > attempt then return false end
    end
  end
  return not done
end
";

/// Deliveries of one hook that are done, were no probes and have no marks. Keys: hash and map of each
/// page. Arguments: how long they are remembered, number of deliveries, how many of them are in each page,
/// and then, page by page, all their fields, all their attempts and all their tokens. The answer says
/// which were not the caller's, from 1.
const DONE: &str = r"
local keep, count = ARGV[1], tonumber(ARGV[2])
local pages, others = #KEYS / 2, {}
local at = 2 + pages
for page = 1, pages do
  local hash, map, last = KEYS[2 * page - 1], KEYS[2 * page], at + ARGV[2 + page]
  local states, bits = states_of(hash, map, at + 1, last)
  local set, ended = {}, {}
  for arg = at + 1, last do
    local field, attempt, token = ARGV[arg], tonumber(ARGV[arg + count]), ARGV[arg + 2 * count]
    if not mine(states[arg - at], is_set(bits, field), attempt, token) then
      others[#others + 1] = arg - 2 - pages
    elseif map == hash then
      redis.call('HSET', hash, field, 'D')
      redis.call('PEXPIRE', hash, keep)
    else
      local n = #set
      set[n + 1], set[n + 2], set[n + 3], set[n + 4] = 'SET', 'u1', field, 1
      ended[#ended + 1] = field
    end
  end
  if #ended > 0 then
    redis.call('BITFIELD', map, unpack(set))
    redis.call('PEXPIRE', map, keep)
    redis.call('HDEL', hash, unpack(ended))
  end
  at = last
end
return others
";

/// What follows is for one delivery: keys are hash and map, the first arguments field, attempt, token.
/// The answer is 0 if it is not the caller's.
const ONE: &str = r"
local state, done = state_of(KEYS[1], KEYS[2], ARGV[1])
if not mine(state, done, tonumber(ARGV[2]), ARGV[3]) then return 0 end
";

/// Lengthens a claim. Further arguments: lease, how long the state is kept.
const RENEW: &str = r"
local till = string.format('%.0f', now + ARGV[4])
redis.call('HSET', KEYS[1], ARGV[1], 'L' .. ARGV[2] .. ':' .. till .. ':' .. ARGV[3])
keep_for(KEYS[1], ARGV[5])
return 1
";

/// Ends a claim. Further keys: circuit, probe, snooze, change, slot. Further arguments: final state, how
/// long it is kept, what a probe does (`closes` the circuit, `ends` without an attempt), delivery id, how
/// long the silence of `snooze` lasts from now on, whether the delivery's own marks are to be forgotten.
const FINISH: &str = r"
if ARGV[4] ~= 'D' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
  keep_for(KEYS[1], ARGV[5])
elseif KEYS[1] == KEYS[2] then
  redis.call('HSET', KEYS[1], ARGV[1], 'D')
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
else
  redis.call('SETBIT', KEYS[2], ARGV[1], 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
if ARGV[6] == 'closes' then redis.call('DEL', KEYS[3], KEYS[4], KEYS[7]) end
if ARGV[6] == 'ends' and redis.call('GET', KEYS[4]) == ARGV[3] then redis.call('DEL', KEYS[4]) end
if ARGV[8] ~= '0' then redis.call('SET', KEYS[5], ARGV[7], 'PX', ARGV[8]) end
if ARGV[9] == '1' then
  if redis.call('GET', KEYS[5]) == ARGV[7] then redis.call('DEL', KEYS[5]) end
  local seen = redis.call('GET', KEYS[6])
  if seen and string.match(seen, ':(%x+)$') == ARGV[7] then redis.call('DEL', KEYS[6]) end
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

/// What the scripts answer; the same numbers as in [`COMMON`].
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
            claim: script(&[STATES, COMMON, CLAIM]),
            claims: script(&[STATES, COMMON, CLAIMS]),
            renew: script(&[STATES, OWN, ONE, RENEW]),
            finish: script(&[STATES, OWN, ONE, FINISH]),
            done: script(&[STATES, OWN, DONE]),
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
