//! The scripts that Redis runs, each in one step. All keys of a hook share a hash tag, so that a
//! Redis Cluster keeps them together.
//!
//! A delivery's state is `D` (done), `P<attempt>` (parked or buried after it), or
//! `L<attempt>:<until>:<token>` (claimed). Where the event's id is its place in the stream, done is a
//! bit in the page of that place instead, which costs far less than a key. A circuit is
//! `<until>:<openings>:<revision>`. Times are in Unix milliseconds by Redis's clock, in the rate's key
//! in microseconds.

use redis::Script;

/// The time, and what a delivery and a circuit say.
const COMMON: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Why an attempt is not to be made; nothing: it is.
local function known(key, page, bit, attempt)
  if bit ~= '' and redis.call('GETBIT', page, bit) == 1 then return 'done', 0 end
  local state = redis.call('GET', key)
  if not state then return end
  local kind = string.sub(state, 1, 1)
  if kind == 'D' then return 'done', 0 end
  if kind == 'P' then
    if tonumber(string.sub(state, 2)) >= attempt then return 'parked', 0 end
  else
    local held, till = string.match(state, '^L(%d+):(%d+):')
    if tonumber(till) > now then return 'busy', tonumber(till) - now end
    if tonumber(held) > attempt then return 'parked', 0 end
  end
end

-- For how long a circuit is open: 0 if it may be probed, nothing if it is closed.
local function open(key, revision)
  local circuit = redis.call('GET', key)
  if not circuit then return end
  local till, opened = string.match(circuit, '^(%d+):%d+:(%d+)$')
  if opened == revision then return math.max(tonumber(till) - now, 0) end
end
";

/// The claim of a delivery with limits or marks. Keys: delivery, page, circuit, probe, rate, snooze,
/// change. Arguments: the bit in the page (empty: none), attempt, token, lease, how long the state is
/// kept, the hook's revision, how long a probe may take, delivery id, microseconds between deliveries
/// (0: no limit), microseconds that may be used up at once, snooze, on_change's value, how long that
/// is kept.
const CLAIM: &str = r"
local attempt = tonumber(ARGV[2])
local word, number = known(KEYS[1], KEYS[2], ARGV[1], attempt)
if word then return {word, number} end
local wait = open(KEYS[3], ARGV[6])
if wait and wait > 0 then return {'open', wait} end
if attempt == 1 and ARGV[11] ~= '0' then
  local owner = redis.call('GET', KEYS[6])
  if owner and owner ~= ARGV[8] then return {'snoozed', 0} end
end
if attempt == 1 and ARGV[12] ~= '' then
  local seen = redis.call('GET', KEYS[7])
  if seen then
    local value, owner = string.match(seen, '^(%x+):(%x+)$')
    if value == ARGV[12] and owner ~= ARGV[8] then return {'unchanged', 0} end
  end
end
local interval = tonumber(ARGV[9])
if interval > 0 then
  local micros = time[1] * 1000000 + time[2]
  local free = math.max(tonumber(redis.call('GET', KEYS[5]) or '0'), micros)
  local next = string.format('%.0f', free + interval)
  redis.call('SET', KEYS[5], next, 'PX', math.ceil((free + interval - micros) / 1000) + 1000)
  if free - micros > tonumber(ARGV[10]) then
    return {'limited', math.ceil((free - micros) / 1000)}
  end
end
if wait and not redis.call('SET', KEYS[4], ARGV[3], 'NX', 'PX', ARGV[7]) then
  return {'open', 1000}
end
local till = string.format('%.0f', now + ARGV[4])
redis.call('SET', KEYS[1], 'L' .. attempt .. ':' .. till .. ':' .. ARGV[3], 'PX', ARGV[5])
if attempt == 1 then
  if ARGV[11] ~= '0' then redis.call('SET', KEYS[6], ARGV[8], 'PX', ARGV[11]) end
  if ARGV[12] ~= '' then
    redis.call('SET', KEYS[7], ARGV[12] .. ':' .. ARGV[8], 'PX', ARGV[13])
  end
end
return {'attempt', wait and 1 or 0}
";

/// Claims of one hook that has neither limits nor marks. Keys: circuit, probe, and of each: delivery,
/// page. Arguments: lease, how long the state is kept, the hook's revision, how long a probe may take,
/// and of each: the bit in the page (empty: none), attempt, token. The answer has a word and a number of
/// each.
const CLAIMS: &str = r"
local till = string.format('%.0f', now + ARGV[1])
local wait = open(KEYS[1], ARGV[3])
local function claim(key, page, bit, attempt, token)
  local word, number = known(key, page, bit, tonumber(attempt))
  if word then return word, number end
  if wait and wait > 0 then return 'open', wait end
  if wait and not redis.call('SET', KEYS[2], token, 'NX', 'PX', ARGV[4]) then return 'open', 1000 end
  redis.call('SET', key, 'L' .. attempt .. ':' .. till .. ':' .. token, 'PX', ARGV[2])
  return 'attempt', wait and 1 or 0
end
local answers = {}
for i = 1, #KEYS / 2 - 1 do
  local arg = 2 + 3 * i
  answers[2 * i - 1], answers[2 * i] =
    claim(KEYS[2 * i + 1], KEYS[2 * i + 2], ARGV[arg], ARGV[arg + 1], ARGV[arg + 2])
end
return answers
";

/// Whether a delivery is the caller's: it holds the claim, or nobody does and the caller's attempt is
/// the next (it was made while Redis was away). And how it ends.
const OWN: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function mine(key, page, bit, attempt, token)
  local state = redis.call('GET', key)
  if state then
    local kind = string.sub(state, 1, 1)
    if kind == 'D' then return false end
    if kind == 'P' then
      if tonumber(string.sub(state, 2)) >= attempt then return false end
    else
      local held, till, holder = string.match(state, '^L(%d+):(%d+):(.*)$')
      if holder == token then return true end
      if tonumber(till) > now or tonumber(held) > attempt then return false end
    end
  end
  return bit == '' or redis.call('GETBIT', page, bit) == 0
end
local function finish(key, page, bit, state, keep)
  if state == 'D' and bit ~= '' then
    redis.call('SETBIT', page, bit, 1)
    redis.call('PEXPIRE', page, keep)
    redis.call('DEL', key)
  else
    redis.call('SET', key, state, 'PX', keep)
  end
end
";

/// Ends claims of one hook that are no probes and have no marks. Keys of each: delivery, page. Arguments
/// of each: the bit in the page (empty: none), attempt, token, final state, how long it is kept. The
/// answer says of each whether it was the caller's.
const FINISHES: &str = r"
local answers = {}
for i = 1, #KEYS / 2 do
  local key, page, arg = KEYS[2 * i - 1], KEYS[2 * i], 5 * i - 4
  local own = mine(key, page, ARGV[arg], tonumber(ARGV[arg + 1]), ARGV[arg + 2])
  if own then finish(key, page, ARGV[arg], ARGV[arg + 3], ARGV[arg + 4]) end
  answers[i] = own and 1 or 0
end
return answers
";

/// What follows is for one delivery: keys are delivery and page, the first arguments the bit in the page
/// (empty: none), attempt, token. The answer is 0 if it is not the caller's.
const ONE: &str = r"
if not mine(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3]) then return 0 end
";

/// Lengthens a claim. Further arguments: lease, how long the state is kept.
const RENEW: &str = r"
local till = string.format('%.0f', now + ARGV[4])
redis.call('SET', KEYS[1], 'L' .. ARGV[2] .. ':' .. till .. ':' .. ARGV[3], 'PX', ARGV[5])
return 1
";

/// Ends the claim of a probe or of a delivery with marks. Further keys: circuit, probe, snooze, change,
/// slot. Further arguments: final state, how long it is kept, whether the circuit closes, delivery id,
/// how long the silence of `snooze` lasts from now on, whether the delivery's own marks are to be
/// forgotten.
const FINISH: &str = r"
finish(KEYS[1], KEYS[2], ARGV[1], ARGV[4], ARGV[5])
if ARGV[6] == '1' then redis.call('DEL', KEYS[3], KEYS[4], KEYS[7]) end
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

/// All scripts.
pub(super) struct Scripts {
    pub(super) claim: Script,
    pub(super) claims: Script,
    pub(super) renew: Script,
    pub(super) finish: Script,
    pub(super) finishes: Script,
    pub(super) open: Script,
    pub(super) slot: Script,
    pub(super) workers: Script,
    pub(super) turn: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            claim: script(&[COMMON, CLAIM]),
            claims: script(&[COMMON, CLAIMS]),
            renew: script(&[OWN, ONE, RENEW]),
            finish: script(&[OWN, ONE, FINISH]),
            finishes: script(&[OWN, FINISHES]),
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
