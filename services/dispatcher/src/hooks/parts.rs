//! A map in parts. Copies share them, and a change copies the part that it is in, not the whole.

use std::collections::HashMap;
use std::sync::Arc;

/// With 100,000 keys a change copies 400.
const PARTS: usize = 256;

/// The map.
#[derive(Debug, Clone)]
pub(super) struct Parts<V>(Box<[Arc<Part<V>>]>);

type Part<V> = HashMap<Arc<str>, V>;

impl<V> Default for Parts<V> {
    fn default() -> Self {
        let empty = Arc::default();
        Self((0..PARTS).map(|_| Arc::clone(&empty)).collect())
    }
}

impl<V: Clone> Parts<V> {
    pub(super) fn get(&self, key: &str) -> Option<&V> {
        self.0[number(key)].get(key)
    }

    /// The part with that key, to be changed.
    pub(super) fn part(&mut self, key: &str) -> &mut Part<V> {
        Arc::make_mut(&mut self.0[number(key)])
    }
}

/// In which part a key is. Whoever chooses keys that are all in one loses nothing but time.
fn number(key: &str) -> usize {
    let hash = |hash: usize, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte));
    key.bytes().fold(0, hash) % PARTS
}
