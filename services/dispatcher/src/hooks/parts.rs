//! A map in parts. Copies share the parts, and a change copies only the part that it is in.

use std::collections::HashMap;
use std::sync::Arc;

/// With 100,000 keys a change copies 400.
const PARTS: usize = 256;

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

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().flat_map(|part| part.values())
    }

    /// The part that holds the key, for a change.
    pub(super) fn part(&mut self, key: &str) -> &mut Part<V> {
        Arc::make_mut(&mut self.0[number(key)])
    }
}

/// Keys chosen to share a part cost only time.
fn number(key: &str) -> usize {
    let hash = |hash: usize, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte));
    key.bytes().fold(0, hash) % PARTS
}
