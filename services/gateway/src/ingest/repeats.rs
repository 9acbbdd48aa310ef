//! Idempotency keys whose events were stored lately. What another node stored, or one of long ago, dispatchers know.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::MutexGuard;

use crate::store::Locks;

/// Keys that are remembered, the last ones.
const KEYS: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Repeats {
    known: Mutex<Known>,
    /// One request at a time with a key.
    turns: Locks,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<String>,
    in_order: VecDeque<String>,
}

impl Repeats {
    /// Waits for others with the same keys.
    pub(super) async fn turns<'a>(
        &self,
        ids: impl Iterator<Item = &'a str>,
    ) -> Vec<MutexGuard<'_, ()>> {
        self.turns.lock_all(ids).await
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.known.lock().ids.contains(id)
    }

    pub(super) fn remember(&self, id: &str) {
        let mut known = self.known.lock();
        if !known.ids.insert(id.to_owned()) {
            return;
        }
        known.in_order.push_back(id.to_owned());
        if known.in_order.len() > KEYS
            && let Some(oldest) = known.in_order.pop_front()
        {
            known.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_keys_are_remembered() {
        let repeats = Repeats::default();
        for number in 0..KEYS + 10 {
            repeats.remember(&number.to_string());
        }
        repeats.remember("12");
        assert!(!repeats.knows("9") && repeats.knows("10"));
        assert_eq!(repeats.known.lock().ids.len(), KEYS);
    }
}
