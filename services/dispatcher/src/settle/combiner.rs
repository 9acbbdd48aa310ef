//! Flat combining: the first caller becomes the leader and handles the items of all that arrive meanwhile, in
//! batches, until none are left. There is no timer, so a lone item does not wait, and no task. Callers that
//! enqueue behind a leader get no completion signal.

use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Debug)]
pub(crate) struct Combiner<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    has_leader: bool,
    waiting: Vec<T>,
}

impl<T> Default for Combiner<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            has_leader: false,
            waiting: Vec::new(),
        })))
    }
}

impl<T> Combiner<T> {
    /// Adds an item. None: the present leader handles it.
    #[must_use]
    pub(crate) fn enter(&self, item: T) -> Option<Leader<T>> {
        let mut state = self.0.lock();
        state.waiting.push(item);
        (!std::mem::replace(&mut state.has_leader, true)).then(|| Leader(Some(Arc::clone(&self.0))))
    }
}

/// Dropping it early drops the waiting items.
#[derive(Debug)]
pub(crate) struct Leader<T>(Option<Arc<Mutex<State<T>>>>);

impl<T> Leader<T> {
    /// Takes the next items, at most `most`. None: there are none, and this is no leader any more.
    pub(crate) fn next(&mut self, most: usize) -> Option<Vec<T>> {
        let combiner = self.0.as_ref()?;
        let mut state = combiner.lock();
        let count = state.waiting.len().min(most);
        if count == 0 {
            state.has_leader = false;
            drop(state);
            self.0 = None;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }
}

impl<T> Drop for Leader<T> {
    fn drop(&mut self) {
        if let Some(combiner) = self.0.take() {
            let mut state = combiner.lock();
            state.has_leader = false;
            let left = std::mem::take(&mut state.waiting);
            drop(state);
            drop(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_gets_the_items_that_arrive_meanwhile() {
        let combiner = Combiner::default();
        let mut leader = combiner.enter(1).expect("the leader");
        assert!(combiner.enter(2).is_none());
        assert_eq!(leader.next(2), Some(vec![1, 2]));
        for item in 3..=5 {
            assert!(combiner.enter(item).is_none());
        }
        assert_eq!(leader.next(2), Some(vec![3, 4]));
        assert_eq!(leader.next(2), Some(vec![5]));
        assert_eq!(leader.next(2), None);
        let mut leader = combiner.enter(6).expect("a new leader");
        assert_eq!(leader.next(2), Some(vec![6]));
    }

    #[test]
    fn a_leader_that_is_dropped_drops_the_waiting_items() {
        let combiner = Combiner::default();
        let item = Arc::new(());
        let leader = combiner.enter(Arc::clone(&item)).expect("the leader");
        assert!(combiner.enter(Arc::clone(&item)).is_none());
        drop(leader);
        assert_eq!(Arc::strong_count(&item), 1, "nothing is kept");
        assert!(combiner.enter(item).is_some());
    }
}
