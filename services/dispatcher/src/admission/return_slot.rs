//! Deferred deliveries return in their hook's next free slot, over all workers, so that a backlog comes back at
//! the rate at which the hook takes deliveries.

use std::time::Duration;

use parking_lot::Mutex;
use redis::Script;
use tokio::time::Instant;

use crate::redis::client::RedisClient;
use crate::redis::keys::Key;
use crate::redis::script_call::{ScriptCall, millis};
use crate::redis::workers::Workers;

/// The longest time that a backlog is spread over: a million deliveries return at less than 300 a second.
const SPREAD: Duration = Duration::from_secs(3_600);

pub(crate) struct ReturnSlots {
    redis: RedisClient,
    workers: Workers,
    script: Script,
}

impl ReturnSlots {
    pub(crate) fn new(redis: RedisClient, workers: Workers) -> Self {
        Self {
            redis,
            workers,
            script: Script::new(include_str!("return_slot.lua")),
        }
    }

    /// Takes the hook's next slot that is at least `from` away. `interval`: this worker's time for one delivery.
    /// `max_age` bounds the slots, so that an attempt can still be made.
    pub(crate) async fn take(
        &self,
        hook: &str,
        memory: &Memory,
        interval: Duration,
        from: Duration,
        max_age: Duration,
    ) -> Duration {
        let interval = interval / self.workers.count();
        let spread = SPREAD.min(max_age / 2);
        let mut call = ScriptCall::new(&self.script, 1);
        call.key(Key::Slot(hook))
            .arg(interval.as_micros() as u64)
            .arg(millis(from))
            .arg(millis(spread));
        match self.redis.call(hook, &call).await {
            Some(wait) => Duration::from_millis(wait).min(from + spread + interval),
            None => memory.take(from, interval, spread),
        }
    }
}

/// Slots given out by this worker while Redis was away.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    next: Mutex<Option<Instant>>,
}

impl Memory {
    /// After the last slot the first is used again.
    fn take(&self, from: Duration, interval: Duration, spread: Duration) -> Duration {
        let mut next = self.next.lock();
        let now = Instant::now();
        let first = now + from;
        let slot = next.map_or(first, |slot| slot.max(first));
        let slot = if slot - first >= spread { first } else { slot };
        *next = Some(slot + interval);
        slot - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn slots_follow_each_other_up_to_a_bound_and_then_start_over() {
        let memory = Memory::default();
        let slots: Vec<_> = (0..6)
            .map(|_| memory.take(SECOND, SECOND, 3 * SECOND).as_secs())
            .collect();
        assert_eq!(slots, [1, 2, 3, 1, 2, 3]);
    }
}
