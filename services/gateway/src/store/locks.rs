//! Locks within this node. They only save work: what is right is decided by the sequences that a
//! batch expects. Without them, this node's own requests would refuse one another.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};

use tokio::sync::{Mutex, MutexGuard};

/// How many locks the things to lock are spread over.
const LOCKS: usize = 4_096;

/// Locks by hash.
#[derive(Debug)]
pub(super) struct Locks(Box<[Mutex<()>]>);

impl Default for Locks {
    fn default() -> Self {
        Self(std::iter::repeat_with(Mutex::default).take(LOCKS).collect())
    }
}

impl Locks {
    /// Locks one thing.
    pub(super) async fn lock(&self, thing: impl Hash) -> MutexGuard<'_, ()> {
        self.0[place(thing)].lock().await
    }

    /// Locks several things, always in the same order, so that nobody waits in a circle.
    pub(super) async fn lock_all<T: Hash>(
        &self,
        things: impl Iterator<Item = T>,
    ) -> Vec<MutexGuard<'_, ()>> {
        let mut places: Vec<_> = things.map(place).collect();
        places.sort_unstable();
        places.dedup();
        let mut guards = Vec::with_capacity(places.len());
        for place in places {
            guards.push(self.0[place].lock().await);
        }
        guards
    }
}

fn place(thing: impl Hash) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(thing);
    hash as usize % LOCKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_thing_twice_is_locked_once() {
        let locks = Locks::default();
        assert_eq!(locks.lock_all(["a", "a"].iter()).await.len(), 1);
        assert!(locks.0[place("a")].try_lock().is_ok());
    }
}
