//! `lambda`: the hook's Lua functions, on threads of their own.
//!
//! A VM belongs to one thread and a script may run for its whole time limit, so scripts do not run
//! on the threads that serve everything else. One hook uses at most half of the Lua threads: the
//! scripts of others go on beside one that always runs into its limit.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hookline_shared::hook::LambdaConfig;
use hookline_shared::lua::{self, Call, Limits, Sandbox, Script, Verdict};
use tokio::sync::{Semaphore, oneshot};

use super::{Delivery, DeliveryError, Handler, Receipt};

/// Lua threads of a dispatcher.
const THREADS: usize = 4;

/// The Lua threads; clones share them. They end when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Pool {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    scripts: Arc<[Script]>,
    delivery: Delivery,
    done: oneshot::Sender<Result<(), DeliveryError>>,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(limits: Limits) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..THREADS {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("lua-{number}"))
                .spawn(move || work(&queue, limits))?;
        }
        Ok(Self { jobs })
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>, limits: Limits) {
    let mut sandbox = None;
    loop {
        // The lock is held while waiting: whoever has it gets the next job.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let result = run(&mut sandbox, &job, limits);
        // Whoever waited may have given up.
        let _ = job.done.send(result);
    }
}

/// Runs the scripts in order until one fails.
fn run(slot: &mut Option<Sandbox>, job: &Job, limits: Limits) -> Result<(), DeliveryError> {
    let sandbox = match slot.take() {
        Some(sandbox) => sandbox,
        None => Sandbox::new(limits)
            .map_err(|_| DeliveryError::Script(lua::Error::Memory(limits.memory)))?,
    };
    let call = Call {
        data: &job.delivery.event.data,
        event: &job.delivery.event_name,
        source: &job.delivery.event.source,
        pid: job.delivery.pid(),
    };
    for script in job.scripts.iter() {
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

/// The `lambda` handler of one hook.
pub(super) struct Lambda {
    scripts: Arc<[Script]>,
    pool: Pool,
    permits: Semaphore,
}

impl Lambda {
    pub(super) fn new(config: &LambdaConfig, pool: Pool) -> Result<Self, lua::Error> {
        let scripts = config.functions.iter().map(|source| lua::compile(source));
        let scripts = scripts.collect::<Result<_, _>>()?;
        Ok(Self {
            scripts,
            pool,
            permits: Semaphore::new(THREADS / 2),
        })
    }
}

#[async_trait]
impl Handler for Lambda {
    fn kind(&self) -> &'static str {
        "lambda"
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError> {
        let _permit = self.permits.acquire().await;
        let (done, result) = oneshot::channel();
        let job = Job {
            scripts: Arc::clone(&self.scripts),
            delivery: delivery.clone(),
            done,
        };
        self.pool
            .jobs
            .send(job)
            .map_err(|_| DeliveryError::Panicked)?;
        let result = result.await.map_err(|_| DeliveryError::Panicked)?;
        result.map(|()| Receipt::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookline_shared::event::{DeliveryId, Event, EventId};
    use std::time::Duration;

    const LIMITS: Limits = Limits {
        time: Duration::from_millis(50),
        memory: 16 << 20,
    };

    fn lambda(pool: &Pool, functions: &[&str]) -> Lambda {
        let functions = functions.iter().map(|f| (*f).to_owned()).collect();
        Lambda::new(&LambdaConfig { functions }, pool.clone()).expect("sound scripts")
    }

    fn delivery() -> Delivery {
        let subject = "hookline.events.default.crud.consumers";
        let event = Event::parse_with_id(subject, None, "{\"n\":1}".into(), EventId::given("1"))
            .expect("an event");
        Delivery {
            id: DeliveryId::new(&event, "h"),
            event: Arc::new(event),
            event_name: "consumers".into(),
        }
    }

    #[tokio::test]
    async fn functions_run_in_order_until_one_fails() {
        let pool = Pool::start(LIMITS).expect("threads");
        let pass = "return function (data) return data.n == 1 end";
        let decline = "return function () return false end";
        let raise = "return function () error('raised') end";
        assert!(
            lambda(&pool, &[pass, pass])
                .attempt(&delivery())
                .await
                .is_ok()
        );
        let declined = lambda(&pool, &[decline, raise]).attempt(&delivery()).await;
        assert!(matches!(declined, Err(DeliveryError::Declined)));
        let raised = lambda(&pool, &[pass, raise]).attempt(&delivery()).await;
        assert!(matches!(
            raised,
            Err(DeliveryError::Script(lua::Error::Script(_)))
        ));
    }

    #[tokio::test]
    async fn endless_scripts_of_one_hook_do_not_stop_anothers() {
        let pool = Pool::start(LIMITS).expect("threads");
        let endless = Arc::new(lambda(&pool, &["return function () while true do end end"]));
        for _ in 0..40 {
            let endless = Arc::clone(&endless);
            tokio::spawn(async move { endless.attempt(&delivery()).await });
        }
        tokio::task::yield_now().await;
        let healthy = lambda(&pool, &["return function () end"]);
        let delivery = delivery();
        let attempt = healthy.attempt(&delivery);
        // The endless ones take a second together.
        let result = tokio::time::timeout(Duration::from_millis(500), attempt).await;
        assert!(matches!(result, Ok(Ok(_))));
    }
}
