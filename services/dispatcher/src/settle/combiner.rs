//! PendingDelivery that is done together: whoever comes while nobody does it has the turn, and does it for all that
//! come meanwhile, part by part, until nobody is left. There is no timer, so what comes alone waits for
//! nothing, and no task of its own; who leaves work to another one is not told of it.

use std::sync::Arc;

use parking_lot::Mutex;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Combiner<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    /// Whether somebody has the turn.
    taken: bool,
    waiting: Vec<T>,
}

impl<T> Default for Combiner<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            taken: false,
            waiting: Vec::new(),
        })))
    }
}

impl<T> Combiner<T> {
    /// Adds an item. Nothing: whoever has the turn sees to it.
    #[must_use]
    pub(crate) fn enter(&self, item: T) -> Option<Leader<T>> {
        let mut state = self.0.lock();
        state.waiting.push(item);
        (!std::mem::replace(&mut state.taken, true)).then(|| Leader(Some(Arc::clone(&self.0))))
    }
}

/// The turn. Where it is dropped before its end, what waits is dropped as well.
#[derive(Debug)]
pub(crate) struct Leader<T>(Option<Arc<Mutex<State<T>>>>);

impl<T> Leader<T> {
    /// The next items, at most so many; nothing: the turn is over.
    pub(crate) fn next(&mut self, most: usize) -> Option<Vec<T>> {
        let queue = self.0.as_ref()?;
        let mut state = queue.lock();
        let count = state.waiting.len().min(most);
        if count == 0 {
            state.taken = false;
            drop(state);
            self.0 = None;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }
}

impl<T> Drop for Leader<T> {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            let mut state = queue.lock();
            state.taken = false;
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
    fn who_has_the_turn_gets_what_comes_meanwhile() {
        let queue = Combiner::default();
        let mut turn = queue.enter(1).expect("the turn");
        assert!(queue.enter(2).is_none());
        assert_eq!(turn.next(2), Some(vec![1, 2]));
        for item in 3..=5 {
            assert!(queue.enter(item).is_none());
        }
        assert_eq!(turn.next(2), Some(vec![3, 4]));
        assert_eq!(turn.next(2), Some(vec![5]));
        assert_eq!(turn.next(2), None);
        let mut turn = queue.enter(6).expect("it is over");
        assert_eq!(turn.next(2), Some(vec![6]));
    }

    #[test]
    fn a_turn_that_breaks_off_takes_what_waits_along() {
        let queue = Combiner::default();
        let item = Arc::new(());
        let turn = queue.enter(Arc::clone(&item)).expect("the turn");
        assert!(queue.enter(Arc::clone(&item)).is_none());
        drop(turn);
        assert_eq!(Arc::strong_count(&item), 1, "nothing is kept");
        assert!(queue.enter(item).is_some());
    }
}
