//! The Lua scripts, each of which Redis runs as one step.

use redis::{FromRedisValue, ParsingError, Script, Value};

use crate::admission::circuit_breaker::LONGEST;

/// A script's answer about one delivery: a word, its number, and with [`word::LIMITED`] the place in the rate limit
/// in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer(pub(super) u8, pub(super) u64, pub(super) u64);

impl FromRedisValue for Answer {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (word, number, place) = FromRedisValue::from_redis_value(value)?;
        Ok(Self(word, number, place))
    }
}

/// The same numbers as in `claimable.lua`.
pub(super) mod word {
    /// Number: 1 if the attempt probes the circuit.
    pub(crate) const ATTEMPT: u8 = 0;
    pub(crate) const DONE: u8 = 1;
    /// Parked or buried.
    pub(crate) const PARKED: u8 = 2;
    /// Another worker has the delivery. Number: for how many milliseconds.
    pub(crate) const BUSY: u8 = 3;
    /// The circuit is open. Number: for how many milliseconds.
    pub(crate) const OPEN: u8 = 4;
    /// The rate limit is used up. Number: for how many milliseconds.
    pub(crate) const LIMITED: u8 = 5;
    pub(crate) const SNOOZED: u8 = 6;
    pub(crate) const UNCHANGED: u8 = 7;
    /// Another delivery probes the circuit. Number: milliseconds until the next try.
    pub(crate) const PROBED: u8 = 8;
    /// A delivery that could suppress this one is in flight. Number: milliseconds until the next try.
    pub(crate) const WAITING: u8 = 9;
}

pub(super) struct Scripts {
    pub(super) claim: Script,
    pub(super) claim_batch: Script,
    pub(super) renew: Script,
    pub(super) finish: Script,
    pub(super) done: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let longest = format!("local LONGEST_OPEN = {}\n", LONGEST.as_millis());
        let bitmap = include_str!("bitmap.lua");
        let claimable = include_str!("claimable.lua");
        let own = include_str!("own.lua");
        let claim = |script| script_of(&[&longest, bitmap, claimable, script]);
        Self {
            claim: claim(include_str!("claim.lua")),
            claim_batch: claim(include_str!("claim_batch.lua")),
            renew: script_of(&[bitmap, own, include_str!("renew.lua")]),
            finish: script_of(&[bitmap, own, include_str!("finish.lua")]),
            done: script_of(&[bitmap, own, include_str!("done.lua")]),
        }
    }
}

fn script_of(parts: &[&str]) -> Script {
    Script::new(&parts.concat())
}
