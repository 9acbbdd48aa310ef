//! The scripts that Redis runs, each as one step.

use redis::{FromRedisValue, ParsingError, Script, Value};

use crate::admission::circuit_breaker::LONGEST;

/// A script's answer about one delivery: its word, the number that goes with it, and its place in the
/// rate limit (Unix milliseconds) where the word is [`word::LIMITED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer(pub(super) u8, pub(super) u64, pub(super) u64);

impl FromRedisValue for Answer {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (word, number, place) = FromRedisValue::from_redis_value(value)?;
        Ok(Self(word, number, place))
    }
}

/// The words of the scripts' answers; the same numbers as in `claimable.lua`.
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
