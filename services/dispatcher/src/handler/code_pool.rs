//! The threads that run hooks' own code: scripts, and templates. It may use its whole time limit, so it stays off the
//! threads that serve everything else.
//!
//! Each hook has its own queue and at most half of the threads. A thread serves one hook for a moment, then the next.
//! The other half serves only hooks whose code was quick so far. So code that always hits its limit leaves room for
//! others, and a busy hook does not wake a thread per delivery.
//!
//! Code that does not come back is beyond what its limits can stop. Its thread is left to it and replaced.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hookline_shared::known_stack::STACK_BYTES;
use hookline_shared::status::Readiness;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::metrics::Metrics;

const THREADS: usize = 4;
/// Threads for quick hooks only, and the most that one hook has.
const HALF: usize = THREADS / 2;
/// Deliveries waiting per thread of a hook before it gets another thread.
const MANY: usize = 2;
/// How long a thread serves one hook while others wait. Running code is not interrupted.
const MOMENT: Duration = Duration::from_millis(2);
/// Code that takes longer is not quick.
const QUICK: Duration = Duration::from_millis(5);
/// How often threads are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Threads that may be stuck at the same time. With more, the process is unhealthy.
const MOST_STUCK: usize = 8;

/// Of one pool.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Of the threads.
    pub name: &'static str,
    /// After this time code is stuck. Its own limits end it much earlier.
    pub patience: Duration,
    pub metrics: Metrics,
    /// For `/healthz`.
    pub health: Readiness,
}

/// Threads with a state `S` each. Clones share the threads, which end with the last one.
pub(crate) struct Pool<S>(Arc<Owner<S>>);

impl<S> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Owner<S>(Arc<Threads<S>>);

struct Threads<S> {
    settings: Settings,
    turns: Mutex<Turns<S>>,
    /// Wakes a thread that serves all hooks, and one that serves the quick ones.
    more: [Condvar; 2],
    working: Mutex<Vec<Arc<Thread<S>>>>,
    stuck: AtomicUsize,
}

struct Turns<S> {
    /// Hooks that want a thread: those whose code is quick, and the others.
    quick: VecDeque<Arc<Hook<S>>>,
    slow: VecDeque<Arc<Hook<S>>>,
    /// Threads that wait for a hook, as in [`Threads::more`].
    idle: [usize; 2],
    ended: bool,
}

/// What a thread serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    All,
    Quick,
}

struct Thread<S> {
    serves: Serves,
    running: Mutex<Option<Running<S>>>,
}

struct Running<S> {
    since: Instant,
    hook: Arc<Hook<S>>,
    stuck: oneshot::Sender<Failure>,
}

struct Hook<S> {
    jobs: Mutex<Jobs<S>>,
    is_slow: AtomicBool,
}

struct Jobs<S> {
    waiting: VecDeque<Job<S>>,
    /// Threads that serve the hook or are about to.
    threads: usize,
}

struct Job<S> {
    work: Box<dyn FnOnce(&mut S) + Send>,
    /// Told if the work does not come back.
    stuck: oneshot::Sender<Failure>,
}

/// Code that gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Panicked,
    /// It does not come back.
    Stuck,
}

impl<S: Default + 'static> Pool<S> {
    pub(crate) fn start(settings: Settings) -> std::io::Result<Self> {
        let threads = Arc::new(Threads {
            settings,
            turns: Mutex::new(Turns {
                quick: VecDeque::new(),
                slow: VecDeque::new(),
                idle: [0; 2],
                ended: false,
            }),
            more: Default::default(),
            working: Mutex::default(),
            stuck: AtomicUsize::new(0),
        });
        for number in 0..THREADS {
            threads.start(if number < HALF {
                Serves::Quick
            } else {
                Serves::All
            })?;
        }
        let watched = Arc::downgrade(&threads);
        let name = format!("{}-watch", threads.settings.name);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || watch(&watched))?;
        Ok(Self(Arc::new(Owner(threads))))
    }

    /// For one hook.
    pub(super) fn place(&self) -> Place<S> {
        Place {
            pool: self.clone(),
            hook: Arc::new(Hook {
                jobs: Mutex::new(Jobs {
                    waiting: VecDeque::new(),
                    threads: 0,
                }),
                is_slow: AtomicBool::new(false),
            }),
        }
    }
}

impl<S> Drop for Owner<S> {
    fn drop(&mut self) {
        self.0.turns.lock().ended = true;
        for more in &self.0.more {
            more.notify_all();
        }
    }
}

/// One hook's entry in the pool.
pub(super) struct Place<S> {
    pool: Pool<S>,
    hook: Arc<Hook<S>>,
}

impl<S: Default + 'static> Place<S> {
    /// Runs `work` on one of the threads, unless the caller gives up before its turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (done, result) = oneshot::channel();
        let (stuck, is_stuck) = oneshot::channel();
        let work = Box::new(move |state: &mut S| {
            if !done.is_closed() {
                let _ = done.send(work(state));
            }
        });
        let wants_thread = {
            let mut jobs = self.hook.jobs.lock();
            jobs.waiting.push_back(Job { work, stuck });
            let wants = jobs.threads < HALF && jobs.waiting.len() > jobs.threads * MANY;
            jobs.threads += usize::from(wants);
            wants
        };
        if wants_thread {
            self.pool.0.0.add(Arc::clone(&self.hook));
        }
        tokio::select! {
            biased;
            result = result => result.map_err(|_| Failure::Panicked),
            Ok(failure) = is_stuck => Err(failure),
        }
    }
}

impl<S: Default + 'static> Threads<S> {
    fn start(self: &Arc<Self>, serves: Serves) -> std::io::Result<()> {
        let thread = Arc::new(Thread {
            serves,
            running: Mutex::new(None),
        });
        let (threads, own) = (Arc::clone(self), Arc::clone(&thread));
        std::thread::Builder::new()
            .name(self.settings.name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || threads.work(&own))?;
        self.working.lock().push(thread);
        Ok(())
    }

    /// Gives a hook a turn.
    fn add(&self, hook: Arc<Hook<S>>) {
        let mut turns = self.turns.lock();
        let is_slow = hook.is_slow.load(Ordering::Relaxed);
        if is_slow {
            turns.slow.push_back(hook);
        } else {
            turns.quick.push_back(hook);
        }
        for serves in [Serves::All, Serves::Quick] {
            let idle = &mut turns.idle[serves as usize];
            if *idle > 0 && (serves == Serves::All || !is_slow) {
                *idle -= 1;
                self.more[serves as usize].notify_one();
                return;
            }
        }
    }

    fn next(&self, serves: Serves) -> Option<Arc<Hook<S>>> {
        let mut turns = self.turns.lock();
        loop {
            // Slow ones first: the quick ones have threads of their own.
            let slow = match serves {
                Serves::All => turns.slow.pop_front(),
                Serves::Quick => None,
            };
            if let Some(hook) = slow.or_else(|| turns.quick.pop_front()) {
                return Some(hook);
            }
            if turns.ended {
                return None;
            }
            turns.idle[serves as usize] += 1;
            self.more[serves as usize].wait(&mut turns);
        }
    }

    fn work(&self, thread: &Thread<S>) {
        let mut state = S::default();
        while let Some(hook) = self.next(thread.serves) {
            let until = Instant::now() + MOMENT;
            while let Some(job) = hook.next() {
                let since = Instant::now();
                *thread.running.lock() = Some(Running {
                    since,
                    hook: Arc::clone(&hook),
                    stuck: job.stuck,
                });
                let run = AssertUnwindSafe(|| (job.work)(&mut state));
                if std::panic::catch_unwind(run).is_err() {
                    state = S::default();
                }
                if thread.running.lock().take().is_none() {
                    // Given up and replaced meanwhile.
                    self.came_back();
                    return;
                }
                hook.is_slow
                    .store(since.elapsed() > QUICK, Ordering::Relaxed);
                if Instant::now() >= until {
                    self.add(hook);
                    break;
                }
            }
        }
    }

    /// Gives up threads whose code does not come back.
    fn look(self: &Arc<Self>) {
        let mut stuck = Vec::new();
        self.working.lock().retain(|thread| {
            let mut running = thread.running.lock();
            let is_stuck = running
                .as_ref()
                .is_some_and(|running| running.since.elapsed() > self.settings.patience);
            if is_stuck {
                stuck.extend(running.take().map(|running| (thread.serves, running)));
            }
            !is_stuck
        });
        for (serves, Running { hook, stuck, .. }) in stuck {
            self.settings.metrics.thread_stuck();
            let _ = stuck.send(Failure::Stuck);
            let count = self.stuck.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::error!(
                pool = self.settings.name,
                count,
                "a hook's code does not come back, its thread is replaced"
            );
            if count > MOST_STUCK {
                let reason = format!("{count} threads are stuck in hooks' code");
                self.settings.health.missing(self.settings.name, &reason);
            } else if let Err(error) = self.start(serves) {
                self.settings.health.missing(
                    self.settings.name,
                    &format!("cannot start a thread: {error}"),
                );
            }
            if hook.leave_thread() {
                self.add(hook);
            }
        }
    }

    fn came_back(&self) {
        if self.stuck.fetch_sub(1, Ordering::Relaxed) == MOST_STUCK + 1 {
            self.settings.health.ready(self.settings.name);
        }
    }
}

fn watch<S: Default + 'static>(threads: &Weak<Threads<S>>) {
    while let Some(threads) = threads.upgrade() {
        if threads.turns.lock().ended {
            return;
        }
        threads.look();
        drop(threads);
        std::thread::sleep(LOOK);
    }
}

impl<S> Hook<S> {
    /// None: the thread has left the hook.
    fn next(&self) -> Option<Job<S>> {
        let mut jobs = self.jobs.lock();
        let job = jobs.waiting.pop_front();
        jobs.threads -= usize::from(job.is_none());
        job
    }

    /// A thread of the hook is gone. Returns whether another one takes its place.
    fn leave_thread(&self) -> bool {
        let mut jobs = self.jobs.lock();
        self.is_slow.store(true, Ordering::Relaxed);
        let is_wanted = !jobs.waiting.is_empty();
        jobs.threads -= usize::from(!is_wanted);
        is_wanted
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use super::*;

    pub(in crate::handler) fn settings() -> Settings {
        Settings {
            name: "test",
            patience: Duration::from_secs(60),
            metrics: Metrics::register(&prometheus::Registry::new(), 0).expect("metrics"),
            health: Readiness::default(),
        }
    }

    fn pool(patience: Duration) -> (Pool<()>, Settings) {
        let settings = Settings {
            patience,
            ..settings()
        };
        (Pool::start(settings.clone()).expect("threads"), settings)
    }

    #[tokio::test]
    async fn a_panic_is_told_and_the_thread_goes_on() {
        let (pool, _) = pool(Duration::from_secs(60));
        let place = pool.place();
        for _ in 0..2 * THREADS {
            let panicked: Result<(), _> = place.run(|()| panic!("broken")).await;
            assert_eq!(panicked, Err(Failure::Panicked));
        }
        assert_eq!(place.run(|()| 1).await, Ok(1));
    }

    /// Blocks until the sender is dropped.
    fn block() -> (mpsc::Sender<()>, impl FnOnce(&mut ()) + Send + 'static) {
        let (sender, receiver) = mpsc::channel::<()>();
        (sender, move |(): &mut ()| {
            let _ = receiver.recv();
        })
    }

    #[tokio::test]
    async fn code_that_does_not_come_back_is_given_up_and_its_threads_are_replaced() {
        let (pool, settings) = pool(Duration::from_millis(100));
        let stuck: Vec<_> = (0..3).map(|_| Arc::new(pool.place())).collect();
        let mut senders = Vec::new();
        for _ in 0..2 {
            let mut all = Vec::new();
            for place in &stuck {
                let (sender, work) = block();
                senders.push(sender);
                let place = Arc::clone(place);
                all.push(tokio::spawn(async move { place.run(work).await }));
            }
            for one in all {
                assert_eq!(one.await.expect("no panic"), Err(Failure::Stuck));
            }
            assert_eq!(pool.place().run(|()| 1).await, Ok(1), "others go on");
            assert_eq!(stuck[0].run(|()| 1).await, Ok(1), "the hook may try again");
        }
        assert!(settings.health.is_ready(), "the threads were replaced");
        drop(senders);
    }

    #[tokio::test]
    async fn too_many_stuck_threads_make_the_process_unhealthy_until_they_come_back() {
        let (pool, settings) = pool(Duration::from_millis(50));
        let mut senders = Vec::new();
        for number in 0..=MOST_STUCK {
            assert!(settings.health.is_ready(), "{number} are stuck");
            let (sender, work) = block();
            senders.push(sender);
            assert_eq!(pool.place().run(work).await, Err(Failure::Stuck));
        }
        let unhealthy = async {
            while settings.health.is_ready() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), unhealthy)
            .await
            .expect("unhealthy");
        drop(senders);
        let healthy = async {
            while !settings.health.is_ready() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), healthy)
            .await
            .expect("healthy again");
    }

    #[tokio::test]
    async fn slow_code_leaves_threads_for_quick_code() {
        let (pool, _) = pool(Duration::from_secs(60));
        let mut places: Vec<_> = (0..2 * THREADS).map(|_| Arc::new(pool.place())).collect();
        for place in &places {
            place
                .run(|()| std::thread::sleep(QUICK * 2))
                .await
                .expect("a result");
        }
        let (mut senders, mut all) = (Vec::new(), Vec::new());
        for place in places.drain(..) {
            let (sender, work) = block();
            senders.push(sender);
            all.push(tokio::spawn(async move { place.run(work).await }));
        }
        tokio::task::yield_now().await;
        assert_eq!(pool.place().run(|()| 1).await, Ok(1));
        assert!(all.iter().all(|one| !one.is_finished()));
        drop(senders);
        for one in all {
            one.await.expect("no panic").expect("a result");
        }
    }

    #[tokio::test]
    async fn quick_code_does_not_keep_out_slow_code() {
        let (pool, _) = pool(Duration::from_secs(60));
        let slow = pool.place();
        slow.run(|()| std::thread::sleep(QUICK * 2))
            .await
            .expect("a result");
        let quick: Vec<_> = (0..4 * THREADS).map(|_| Arc::new(pool.place())).collect();
        let busy: Vec<_> = quick
            .iter()
            .map(|place| {
                let place = Arc::clone(place);
                tokio::spawn(async move {
                    while place.run(|()| std::thread::sleep(QUICK / 5)).await.is_ok() {}
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let served = async {
            for _ in 0..5 {
                let work = |(): &mut ()| std::thread::sleep(QUICK * 2);
                slow.run(work).await.expect("a result");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), served)
            .await
            .expect("it is served");
        assert!(busy.iter().all(|one| !one.is_finished()));
        busy.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
