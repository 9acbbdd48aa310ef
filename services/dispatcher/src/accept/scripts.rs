//! The scripts that Redis runs, each in one step. All keys of a hook share a hash tag, so that a
//! Redis Cluster keeps them together.
//!
//! A delivery's state is `D` (done), `P<attempt>` (parked or buried after it), or
//! `L<attempt>:<until>:<token>` (claimed). A circuit is `<until>:<openings>:<revision>`. Times are
//! in Unix milliseconds by Redis's clock, in the rate's key in microseconds.

use redis::Script;

/// Keys: delivery, circuit, probe, and for a hook with limits or marks: rate, snooze, change.
/// Arguments: attempt, token, lease, how long the state is kept, the hook's revision, how long a
/// probe may take, delivery id, microseconds between deliveries (0: no limit), microseconds that may
/// be used up at once, snooze, on_change's value, how long that is kept.
const CLAIM: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local attempt = tonumber(ARGV[1])
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
local circuit = redis.call('GET', KEYS[2])
if circuit then
  local till, revision = string.match(circuit, '^(%d+):%d+:(%d+)$')
  if revision == ARGV[5] then
    if tonumber(till) > now then return {'open', tonumber(till) - now} end
    probe = 1
  end
end
if #KEYS > 3 then
  if attempt == 1 and ARGV[10] ~= '0' then
    local owner = redis.call('GET', KEYS[5])
    if owner and owner ~= ARGV[7] then return {'snoozed', 0} end
  end
  if attempt == 1 and ARGV[11] ~= '' then
    local seen = redis.call('GET', KEYS[6])
    if seen then
      local value, owner = string.match(seen, '^(%x+):(%x+)$')
      if value == ARGV[11] and owner ~= ARGV[7] then return {'unchanged', 0} end
    end
  end
  local interval = tonumber(ARGV[8])
  if interval > 0 then
    local micros = time[1] * 1000000 + time[2]
    local free = math.max(tonumber(redis.call('GET', KEYS[4]) or '0'), micros)
    local next = string.format('%.0f', free + interval)
    redis.call('SET', KEYS[4], next, 'PX', math.ceil((free + interval - micros) / 1000) + 1000)
    if free - micros > tonumber(ARGV[9]) then
      return {'limited', math.ceil((free - micros) / 1000)}
    end
  end
end
if probe == 1 and not redis.call('SET', KEYS[3], ARGV[2], 'NX', 'PX', ARGV[6]) then
  return {'open', 1000}
end
local till = string.format('%.0f', now + ARGV[3])
redis.call('SET', KEYS[1], 'L' .. attempt .. ':' .. till .. ':' .. ARGV[2], 'PX', ARGV[4])
if #KEYS > 3 and attempt == 1 then
  if ARGV[10] ~= '0' then redis.call('SET', KEYS[5], ARGV[7], 'PX', ARGV[10]) end
  if ARGV[11] ~= '' then
    redis.call('SET', KEYS[6], ARGV[11] .. ':' .. ARGV[7], 'PX', ARGV[12])
  end
end
return {'attempt', probe}
";

/// Whether the delivery is the caller's: 1 if it holds the claim, or nobody does and the caller's
/// attempt is the next (it was made while Redis was away).
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
if not mine(redis.call('GET', KEYS[1]), tonumber(ARGV[1]), ARGV[2]) then return 0 end
";

/// Lengthens a claim. Arguments: attempt, token, lease, how long the state is kept.
const RENEW: &str = r"
local till = string.format('%.0f', now + ARGV[3])
redis.call('SET', KEYS[1], 'L' .. ARGV[1] .. ':' .. till .. ':' .. ARGV[2], 'PX', ARGV[4])
return 1
";

/// Ends a claim. Arguments: attempt, token, final state, how long it is kept.
const FINISH: &str = r"
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
";

/// As [`FINISH`], for a probe or a delivery with marks. Keys: delivery, circuit, probe, snooze,
/// change. Further arguments: whether the circuit closes, delivery id, how long the silence of
/// `snooze` lasts from now on, whether the delivery's own marks are to be forgotten.
const FINISH_ALL: &str = r"
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
if ARGV[5] == '1' then redis.call('DEL', KEYS[2], KEYS[3]) end
if ARGV[7] ~= '0' then redis.call('SET', KEYS[4], ARGV[6], 'PX', ARGV[7]) end
if ARGV[8] == '1' then
  if redis.call('GET', KEYS[4]) == ARGV[6] then redis.call('DEL', KEYS[4]) end
  local seen = redis.call('GET', KEYS[5])
  if seen and string.match(seen, ':(%x+)$') == ARGV[6] then redis.call('DEL', KEYS[5]) end
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

/// Takes a hook's next free slot, and says in how many milliseconds it is. Arguments: microseconds
/// between slots, milliseconds until the first, the most milliseconds from the first on.
const SLOT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local first = now + ARGV[2] * 1000
local slot = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), first)
if slot - first > ARGV[3] * 1000 then return ARGV[2] + ARGV[3] end
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
