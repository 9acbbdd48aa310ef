//! The threads that run Lua. A VM belongs to one thread and a script may use its whole time limit, so scripts
//! stay off the threads that serve everything else.
//!
//! Each hook has its own queue and at most half of the threads. A thread serves one hook for a moment, then the
//! next. So scripts that always hit their limit leave room for others, and a busy hook does not wake a thread
//! per script.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookline_shared::lua::{self, Call, Limits, Sandbox, Script, Verdict};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{Delivery, DeliveryError};

const THREADS: usize = 4;
const PER_HOOK: usize = THREADS / 2;
/// Deliveries waiting per thread of a hook before it gets another thread.
const MANY: usize = 2;
/// How long a thread serves one hook while others wait. Running scripts are not interrupted.
const MOMENT: Duration = Duration::from_millis(2);

/// Clones share the threads, which end with the last one.
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
    /// Hooks that want a thread.
    hooks: VecDeque<Arc<Hook>>,
    ended: bool,
}

/// One hook's scripts and their queue.
#[derive(Debug)]
struct Hook {
    scripts: Vec<Script>,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Threads that serve the hook or are about to.
    threads: usize,
}

#[derive(Debug)]
struct Job {
    delivery: Delivery,
    done: oneshot::Sender<Result<(), DeliveryError>>,
}

impl Pool {
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
        self.0.turns.lock().ended = true;
        self.0.more.notify_all();
    }
}

/// One hook's entry in the pool.
pub(super) struct Place {
    pool: Pool,
    hook: Arc<Hook>,
}

impl Place {
    /// Runs the hook's scripts in order until one fails.
    pub(super) async fn run(&self, delivery: Delivery) -> Result<(), DeliveryError> {
        let (done, result) = oneshot::channel();
        let wants_thread = {
            let mut jobs = self.hook.jobs.lock();
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
        self.turns.lock().hooks.push_back(hook);
        self.more.notify_one();
    }

    fn work(&self, limits: Limits) {
        let mut sandbox = None;
        while let Some(hook) = self.next() {
            let until = Instant::now() + MOMENT;
            while let Some(job) = hook.next() {
                // The caller may have given up.
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
        let mut turns = self.turns.lock();
        loop {
            if let Some(hook) = turns.hooks.pop_front() {
                return Some(hook);
            }
            if turns.ended {
                return None;
            }
            self.more.wait(&mut turns);
        }
    }
}

impl Hook {
    /// None: the thread has left the hook.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock();
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
            // The VM of a script that exceeded its limits is discarded.
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
