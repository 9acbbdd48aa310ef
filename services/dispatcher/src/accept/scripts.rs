//! The scripts that Redis runs, each in one step. All keys of a hook share a hash tag, so that a
//! Redis Cluster keeps them together.
//!
//! A delivery's state is `D` (done), `P<attempt>` (parked or buried after it), or
//! `L<attempt>:<until>:<token>` (claimed). Where the event's id is its place in the stream, done is a
//! bit in the page of that place instead, which costs far less than a key. A circuit is
//! `<until>:<openings>:<revision>`. Times are in Unix milliseconds by Redis's clock, in the rate's key
//! in microseconds.

use redis::Script;

/// Keys: delivery, page, circuit, probe, and for a hook with limits or marks: rate, snooze, change.
/// Arguments: the bit in the page (empty: none), attempt, token, lease, how long the state is kept,
/// the hook's revision, how long a probe may take, delivery id, microseconds between deliveries
/// (0: no limit), microseconds that may be used up at once, snooze, on_change's value, how long that
/// is kept.
const CLAIM: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' and redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return {'done', 0} end
local attempt = tonumber(ARGV[2])
local state = redis.call('GET', KEYS[1])
if state then
  local kind = string.sub(state, 1, 1)
  if kind == 'D' then return {'done', 0} end
  if kind == 'P' then
    if tonumber(string.sub(state, 2)) >= attempt then return {'parked', 0} end
  else
    local held, till = string.match(state, '^L(%d+):(%d+):')
    if tonumber(till) > now then return {'busy', tonumber(till) - now} end
    if tonumber(held) > attempt then return {'parked', 0} end
  end
end
local probe = 0
local circuit = redis.call('GET', KEYS[3])
if circuit then
  local till, revision = string.match(circuit, '^(%d+):%d+:(%d+)$')
  if revision == ARGV[6] then
    if tonumber(till) > now then return {'open', tonumber(till) - now} end
    probe = 1
  end
end
if #KEYS > 4 then
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
end
if probe == 1 and not redis.call('SET', KEYS[4], ARGV[3], 'NX', 'PX', ARGV[7]) then
  return {'open', 1000}
end
local till = string.format('%.0f', now + ARGV[4])
redis.call('SET', KEYS[1], 'L' .. attempt .. ':' .. till .. ':' .. ARGV[3], 'PX', ARGV[5])
if #KEYS > 4 and attempt == 1 then
  if ARGV[11] ~= '0' then redis.call('SET', KEYS[6], ARGV[8], 'PX', ARGV[11]) end
  if ARGV[12] ~= '' then
    redis.call('SET', KEYS[7], ARGV[12] .. ':' .. ARGV[8], 'PX', ARGV[13])
  end
end
return {'attempt', probe}
";

/// Whether the delivery is the caller's: 1 if it holds the claim, or nobody does and the caller's
/// attempt is the next (it was made while Redis was away). Keys: delivery, page. The first argument
/// is the bit in the page.
const MINE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function mine(state, attempt, token)
  if not state then return true end
  local kind = string.sub(state, 1, 1)
  if kind == 'D' then return false end
  if kind == 'P' then return tonumber(string.sub(state, 2)) < attempt end
  local held, till, holder = string.match(state, '^L(%d+):(%d+):(.*)$')
  if holder == token then return true end
  return tonumber(till) <= now and tonumber(held) <= attempt
end
if ARGV[1] ~= '' and redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return 0 end
if not mine(redis.call('GET', KEYS[1]), tonumber(ARGV[2]), ARGV[3]) then return 0 end
local function finish(state, keep)
  if state == 'D' and ARGV[1] ~= '' then
    redis.call('SETBIT', KEYS[2], ARGV[1], 1)
    redis.call('PEXPIRE', KEYS[2], keep)
    redis.call('DEL', KEYS[1])
  else
    redis.call('SET', KEYS[1], state, 'PX', keep)
  end
end
";

/// Lengthens a claim. Further arguments: attempt, token, lease, how long the state is kept.
const RENEW: &str = r"
local till = string.format('%.0f', now + ARGV[4])
redis.call('SET', KEYS[1], 'L' .. ARGV[2] .. ':' .. till .. ':' .. ARGV[3], 'PX', ARGV[5])
return 1
";

/// Ends a claim. Further arguments: attempt, token, final state, how long it is kept.
const FINISH: &str = r"
finish(ARGV[4], ARGV[5])
return 1
";

/// As [`FINISH`], for a probe or a delivery with marks. Keys: delivery, page, circuit, probe, snooze,
/// change, slot. Further arguments: whether the circuit closes, delivery id, how long the silence of
/// `snooze` lasts from now on, whether the delivery's own marks are to be forgotten.
const FINISH_ALL: &str = r"
finish(ARGV[4], ARGV[5])
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
    pub(super) renew: Script,
    pub(super) finish: Script,
    pub(super) finish_all: Script,
    pub(super) open: Script,
    pub(super) slot: Script,
    pub(super) workers: Script,
    pub(super) turn: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            claim: Script::new(CLAIM),
            renew: mine(RENEW),
            finish: mine(FINISH),
            finish_all: mine(FINISH_ALL),
            open: Script::new(OPEN),
            slot: Script::new(SLOT),
            workers: Script::new(WORKERS),
            turn: Script::new(TURN),
        }
    }
}

/// A script that does something only if the delivery is the caller's.
fn mine(script: &str) -> Script {
    Script::new(&format!("{MINE}{script}"))
}
