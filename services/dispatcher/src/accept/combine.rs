//! Calls that callers make together: while one is under way, those that come queue, and leave as the next
//! one. There is no timer, so a lone call waits for nothing, and no task: whoever comes first makes the
//! call, and then leaves the next one to the first in the queue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Callers of the same hook.
#[derive(Debug)]
pub(super) struct Combiner<T, A> {
    queue: Arc<Queue<T, A>>,
    /// The most that one call is made for.
    most: usize,
}

#[derive(Debug)]
struct Queue<T, A>(Mutex<State<T, A>>);

#[derive(Debug)]
struct State<T, A> {
    /// Whether somebody has the turn.
    taken: bool,
    waiting: VecDeque<Waiting<T, A>>,
}

#[derive(Debug)]
struct Waiting<T, A> {
    item: T,
    told: oneshot::Sender<Told<T, A>>,
}

/// What a caller that waits is told.
#[derive(Debug)]
enum Told<T, A> {
    /// What came of its item.
    Answer(A),
    /// To make the next call. It has its item back.
    Call(T, Turn<T, A>),
}

/// Where a caller stands at first.
#[derive(Debug)]
enum Entered<T, A> {
    /// Nobody else has the turn. It has its item back.
    Turn(T, Turn<T, A>),
    /// In the queue.
    Queue(oneshot::Receiver<Told<T, A>>),
}

impl<T, A> Combiner<T, A> {
    /// For at most so many callers at once.
    pub(super) fn new(most: usize) -> Self {
        let state = State {
            taken: false,
            waiting: VecDeque::new(),
        };
        Self {
            queue: Arc::new(Queue(Mutex::new(state))),
            most,
        }
    }

    /// Has `call` made for an item, with those of others. It answers item by item; nothing if it failed.
    pub(super) async fn call<F>(&self, item: T, call: impl FnOnce(Vec<T>) -> F) -> Option<A>
    where
        F: Future<Output = Option<Vec<A>>>,
    {
        let (item, turn) = match self.enter(item) {
            Entered::Turn(item, turn) => (item, turn),
            Entered::Queue(told) => match told.await.ok()? {
                Told::Answer(answer) => return Some(answer),
                Told::Call(item, turn) => (item, turn),
            },
        };
        // Whoever is about to come comes along.
        tokio::task::yield_now().await;
        let (mut items, mut tolds) = (vec![item], Vec::new());
        for other in self.queue.take(self.most - 1) {
            items.push(other.item);
            tolds.push(other.told);
        }
        let answers = call(items).await;
        // The next call first: its callers have waited already.
        drop(turn);
        let mut answers = answers?.into_iter();
        let mine = answers.next();
        for (told, answer) in tolds.into_iter().zip(answers) {
            // Who waits no longer needs no answer.
            let _ = told.send(Told::Answer(answer));
        }
        mine
    }

    fn enter(&self, item: T) -> Entered<T, A> {
        let mut state = self.queue.lock();
        if !state.taken {
            state.taken = true;
            return Entered::Turn(item, Turn(Some(Arc::clone(&self.queue))));
        }
        let (told, tells) = oneshot::channel();
        state.waiting.push_back(Waiting { item, told });
        Entered::Queue(tells)
    }
}

impl<T, A> Queue<T, A> {
    fn take(&self, most: usize) -> Vec<Waiting<T, A>> {
        let waiting = &mut self.lock().waiting;
        let count = most.min(waiting.len());
        waiting.drain(..count).collect()
    }

    /// Gives the turn to the first who still waits.
    fn pass_on(self: &Arc<Self>) {
        loop {
            let first = {
                let mut state = self.lock();
                state.taken = !state.waiting.is_empty();
                state.waiting.pop_front()
            };
            let Some(first) = first else { return };
            let turn = Turn(Some(Arc::clone(self)));
            match first.told.send(Told::Call(first.item, turn)) {
                Err(Told::Call(_, mut turn)) => turn.0 = None,
                _ => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make the next call. Wherever it is dropped, another one has it.
#[derive(Debug)]
struct Turn<T, A>(Option<Arc<Queue<T, A>>>);

impl<T, A> Drop for Turn<T, A> {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    type Calls = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Makes a call that takes a second and doubles each item; one of zero fails.
    async fn doubled(combiner: &Combiner<u32, u32>, calls: &Calls, item: u32) -> Option<u32> {
        let call = |items: Vec<u32>| async move {
            calls.lock().expect("no panic").push(items.clone());
            tokio::time::sleep(Duration::from_secs(1)).await;
            let failed = items.contains(&0);
            (!failed).then(|| items.into_iter().map(|item| item * 2).collect())
        };
        combiner.call(item, call).await
    }

    fn start(
        items: impl IntoIterator<Item = u32>,
    ) -> (Vec<tokio::task::JoinHandle<Option<u32>>>, Calls) {
        let (combiner, calls) = (Arc::new(Combiner::new(3)), Calls::default());
        let tasks = items.into_iter().map(|item| {
            let (combiner, calls) = (Arc::clone(&combiner), Arc::clone(&calls));
            tokio::spawn(async move { doubled(&combiner, &calls, item).await })
        });
        (tasks.collect(), calls)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_with_or_during_a_call_shares_one_and_each_has_its_own_answer() {
        let (tasks, calls) = start(1..=7);
        for (task, item) in tasks.into_iter().zip(1..) {
            assert_eq!(task.await.expect("a task"), Some(item * 2));
        }
        let calls = calls.lock().expect("no panic").clone();
        assert_eq!(calls, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_fails_fails_for_its_callers_only() {
        let (tasks, _) = start([1, 0, 3, 4, 5]);
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.expect("a task"));
        }
        assert_eq!(answers, [None, None, None, Some(8), Some(10)]);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_are_gone_keep_nobody_waiting() {
        let (tasks, calls) = start(1..=7);
        tokio::time::sleep(Duration::from_millis(500)).await;
        // The one that makes the call for the first three, and the one that would make the next: it may
        // be told and gone before it hears it.
        tasks[0].abort();
        tasks[3].abort();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.ok().flatten());
        }
        let none = [None; 4];
        assert_eq!(answers[..4], none);
        assert_eq!(answers[4..], [Some(10), Some(12), Some(14)]);
        let calls = calls.lock().expect("no panic").clone();
        assert_eq!(calls, [vec![1, 2, 3], vec![5, 6, 7]]);
    }

    #[tokio::test]
    async fn a_turn_that_is_dropped_unheard_goes_to_the_next() {
        let combiner = Combiner::<u32, u32>::new(3);
        let first = combiner.enter(1);
        assert!(matches!(first, Entered::Turn(1, _)));
        let unheard = combiner.enter(2);
        let Entered::Queue(next) = combiner.enter(3) else {
            panic!("two have the turn");
        };
        drop(first);
        drop(unheard);
        let told = next.await.expect("it is told");
        assert!(matches!(told, Told::Call(3, _)));
    }
}
