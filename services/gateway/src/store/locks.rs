//! Locks within this node. They only save retries: correctness rests on the sequences that a batch
//! expects. Without locks, this node's own requests would conflict with one another.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};

use tokio::sync::{Mutex, MutexGuard};

/// Locks are striped by hash.
const STRIPES: usize = 4_096;

#[derive(Debug)]
pub(super) struct Locks(Box<[Mutex<()>]>);

impl Default for Locks {
    fn default() -> Self {
        Self(
            std::iter::repeat_with(Mutex::default)
                .take(STRIPES)
                .collect(),
        )
    }
}

impl Locks {
    pub(super) async fn lock(&self, key: impl Hash) -> MutexGuard<'_, ()> {
        self.0[stripe(key)].lock().await
    }

    /// Locks in a fixed order to avoid deadlock.
    pub(super) async fn lock_all<T: Hash>(
        &self,
        keys: impl Iterator<Item = T>,
    ) -> Vec<MutexGuard<'_, ()>> {
        let mut stripes: Vec<_> = keys.map(stripe).collect();
        stripes.sort_unstable();
        stripes.dedup();
        let mut guards = Vec::with_capacity(stripes.len());
        for stripe in stripes {
            guards.push(self.0[stripe].lock().await);
        }
        guards
    }
}

fn stripe(key: impl Hash) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    hash as usize % STRIPES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_key_twice_is_locked_once() {
        let locks = Locks::default();
        assert_eq!(locks.lock_all(["a", "a"].iter()).await.len(), 1);
        assert!(locks.0[stripe("a")].try_lock().is_ok());
    }
}
