//! The Lua threads. A VM belongs to one thread and a script may run for its whole time limit, so scripts
//! do not run on the threads that serve everything else.
//!
//! Each hook has a queue of its own. A thread works at one hook's for a moment, and then lets the next
//! hook have its turn; a hook has at most half of the threads. So the scripts of others go on beside one
//! that always runs into its limit, and those of a busy hook do not wake a thread each.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hookline_shared::lua::{self, Call, Limits, Sandbox, Script, Verdict};
use tokio::sync::oneshot;

use super::{Delivery, DeliveryError};

/// Lua threads of a dispatcher.
const THREADS: usize = 4;
/// Those that one hook may have.
const PER_HOOK: usize = THREADS / 2;
/// So many deliveries that wait for each of a hook's threads bring it another one.
const MANY: usize = 2;
/// How long a thread works at one hook's while others wait; a script is not broken off for that.
const MOMENT: Duration = Duration::from_millis(2);

/// The Lua threads; clones share them. They end when the last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Threads>);

#[derive(Debug, Default)]
struct Threads {
    turns: Mutex<Turns>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    /// Hooks that a thread should work for.
    hooks: VecDeque<Arc<Hook>>,
    ended: bool,
}

/// One hook's scripts, and what they are to be run with.
#[derive(Debug)]
struct Hook {
    scripts: Vec<Script>,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Threads that work at them, or are about to.
    threads: usize,
}

#[derive(Debug)]
struct Job {
    delivery: Delivery,
    done: oneshot::Sender<Result<(), DeliveryError>>,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(limits: Limits) -> std::io::Result<Self> {
        let pool = Self(Arc::new(Owner(Arc::default())));
        for number in 0..THREADS {
            let threads = Arc::clone(&pool.0.0);
            std::thread::Builder::new()
                .name(format!("lua-{number}"))
                .spawn(move || threads.work(limits))?;
        }
        Ok(pool)
    }

    /// A hook's place in the pool.
    pub(super) fn place(&self, scripts: Vec<Script>) -> Place {
        let hook = Hook {
            scripts,
            jobs: Mutex::default(),
        };
        Place {
            pool: self.clone(),
            hook: Arc::new(hook),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        lock(&self.0.turns).ended = true;
        self.0.more.notify_all();
    }
}

/// Where one hook's scripts are run.
pub(super) struct Place {
    pool: Pool,
    hook: Arc<Hook>,
}

impl Place {
    /// Runs the hook's scripts in order until one fails.
    pub(super) async fn run(&self, delivery: Delivery) -> Result<(), DeliveryError> {
        let (done, result) = oneshot::channel();
        let wants_thread = {
            let mut jobs = lock(&self.hook.jobs);
            jobs.waiting.push_back(Job { delivery, done });
            let wants = jobs.threads < PER_HOOK && jobs.waiting.len() > jobs.threads * MANY;
            jobs.threads += usize::from(wants);
            wants
        };
        if wants_thread {
            self.pool.0.0.add(Arc::clone(&self.hook));
        }
        result.await.map_err(|_| DeliveryError::Panicked)?
    }
}

impl Threads {
    fn add(&self, hook: Arc<Hook>) {
        lock(&self.turns).hooks.push_back(hook);
        self.more.notify_one();
    }

    fn work(&self, limits: Limits) {
        let mut sandbox = None;
        while let Some(hook) = self.next() {
            let until = Instant::now() + MOMENT;
            while let Some(job) = hook.next() {
                // Whoever waited may have given up.
                if job.done.is_closed() {
                    continue;
                }
                let run = AssertUnwindSafe(|| run(&mut sandbox, &hook.scripts, &job, limits));
                let result = std::panic::catch_unwind(run);
                let _ = job
                    .done
                    .send(result.unwrap_or(Err(DeliveryError::Panicked)));
                if Instant::now() >= until {
                    self.add(hook);
                    break;
                }
            }
        }
    }

    fn next(&self) -> Option<Arc<Hook>> {
        let mut turns = lock(&self.turns);
        loop {
            if let Some(hook) = turns.hooks.pop_front() {
                return Some(hook);
            }
            if turns.ended {
                return None;
            }
            let waited = self.more.wait(turns);
            turns = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Hook {
    /// The next job; nothing: the thread has left the hook.
    fn next(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        let job = jobs.waiting.pop_front();
        jobs.threads -= usize::from(job.is_none());
        job
    }
}

fn run(
    slot: &mut Option<Sandbox>,
    scripts: &[Script],
    job: &Job,
    limits: Limits,
) -> Result<(), DeliveryError> {
    let sandbox = match slot.take() {
        Some(sandbox) => sandbox,
        None => Sandbox::new(limits)
            .map_err(|_| DeliveryError::Script(lua::Error::Memory(limits.memory)))?,
    };
    let call = Call {
        data: job.delivery.event.data(),
        event: &job.delivery.event_name,
        source: &job.delivery.event.source,
        pid: job.delivery.pid(),
    };
    for script in scripts {
        match sandbox.call(script, call) {
            Ok(Verdict::Done) => {}
            Ok(Verdict::Again) => {
                *slot = Some(sandbox);
                return Err(DeliveryError::Declined);
            }
            // A VM in which a script went over its limits is thrown away.
            Err(error @ (lua::Error::Time(_) | lua::Error::Memory(_))) => {
                return Err(DeliveryError::Script(error));
            }
            Err(error) => {
                *slot = Some(sandbox);
                return Err(DeliveryError::Script(error));
            }
        }
    }
    *slot = Some(sandbox);
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
