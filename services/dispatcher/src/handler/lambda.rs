//! `lambda`: the hook's Lua functions.

use std::sync::Arc;

use async_trait::async_trait;
use hookline_shared::hook::LambdaConfig;
use hookline_shared::lua::{self, Call, Level, Limits, Line, Sandbox, Script, Verdict};
use hookline_shared::telemetry::OWN_RECORDS;

use super::code_pool::{Place, Pool};
use super::preparation::Preparation;
use super::{Delivery, DeliveryError, Handler, Receipt};

/// A thread's VM, which belongs to one thread.
pub(crate) type Vm = Option<Sandbox>;

struct Lambda {
    hook: Arc<str>,
    place: Place<Vm>,
    scripts: Arc<[Script]>,
    limits: Limits,
}

pub(super) fn prepare(
    config: &LambdaConfig,
    with: &Preparation<'_>,
) -> Result<Box<dyn Handler>, String> {
    let shared = with.shared;
    let lambda = Lambda::new(with.hook, config, &shared.scripts, shared.limits);
    Ok(Box::new(lambda.map_err(|error| error.to_string())?))
}

impl Lambda {
    fn new(
        hook: &str,
        config: &LambdaConfig,
        pool: &Pool<Vm>,
        limits: Limits,
    ) -> Result<Self, lua::Error> {
        let scripts = config.functions.iter().map(|source| lua::compile(source));
        Ok(Self {
            hook: hook.into(),
            place: pool.place(),
            scripts: scripts.collect::<Result<_, _>>()?,
            limits,
        })
    }
}

#[async_trait]
impl Handler for Lambda {
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, DeliveryError> {
        let (scripts, delivery, limits) =
            (Arc::clone(&self.scripts), delivery.clone(), self.limits);
        let hook = Arc::clone(&self.hook);
        let run = move |vm: &mut Vm| run(vm, &hook, &scripts, &delivery, limits);
        self.place.run(run).await.map_err(DeliveryError::from)??;
        Ok(Receipt::Done)
    }
}

/// Runs scripts in order until one fails.
fn run(
    vm: &mut Vm,
    hook: &str,
    scripts: &[Script],
    delivery: &Delivery,
    limits: Limits,
) -> Result<(), DeliveryError> {
    let sandbox = match vm.take() {
        Some(sandbox) => sandbox,
        None => Sandbox::new(limits)
            .map_err(|_| DeliveryError::Script(lua::Error::Memory(limits.memory)))?,
    };
    let call = Call {
        data: delivery.event.data(),
        event: &delivery.event_name,
        source: &delivery.event.source,
        pid: delivery.pid(),
    };
    for script in scripts {
        let result = sandbox.call(script, call);
        for line in sandbox.take_log() {
            log(hook, delivery, &line);
        }
        match result {
            Ok(Verdict::Done) => {}
            Ok(Verdict::Again) => {
                *vm = Some(sandbox);
                return Err(DeliveryError::Declined);
            }
            // The VM of a script that exceeded its limits is discarded.
            Err(error @ (lua::Error::Time(_) | lua::Error::Memory(_))) => {
                return Err(DeliveryError::Script(error));
            }
            Err(error) => {
                *vm = Some(sandbox);
                return Err(DeliveryError::Script(error));
            }
        }
    }
    *vm = Some(sandbox);
    Ok(())
}

/// In the dispatcher's log, as the `log` handler's records.
fn log(hook: &str, delivery: &Delivery, line: &Line) {
    let (text, delivery) = (&line.text, &delivery.id);
    match line.level {
        Level::Debug => tracing::debug!(target: OWN_RECORDS, hook, %delivery, "{text}"),
        Level::Info => tracing::info!(target: OWN_RECORDS, hook, %delivery, "{text}"),
        Level::Warn => tracing::warn!(target: OWN_RECORDS, hook, %delivery, "{text}"),
        Level::Error => tracing::error!(target: OWN_RECORDS, hook, %delivery, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::code_pool::tests::settings;
    use hookline_shared::event::{DeliveryId, Event, EventId};
    use hookline_shared::lua::Limits;
    use std::sync::Arc;
    use std::time::Duration;

    const LIMITS: Limits = Limits {
        time: Duration::from_millis(50),
        memory: 16 << 20,
    };

    fn lambda(pool: &Pool<Vm>, functions: &[&str]) -> Lambda {
        let functions = functions.iter().map(|f| (*f).to_owned()).collect();
        Lambda::new("h", &LambdaConfig { functions }, pool, LIMITS).expect("sound scripts")
    }

    fn delivery() -> Delivery {
        let subject = "hookline.events.default.crud.consumers";
        let event = Event::parse_with_id(subject, None, "{\"n\":1}".into(), EventId::given("1"))
            .expect("an event");
        Delivery {
            id: DeliveryId::new(&event, "h"),
            event: Arc::new(event),
            event_name: "consumers".into(),
            trace: None,
        }
    }

    #[tokio::test]
    async fn functions_run_in_order_until_one_fails() {
        let pool = Pool::start(settings()).expect("threads");
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
        let pool = Pool::start(settings()).expect("threads");
        let endless = Arc::new(lambda(&pool, &["return function () while true do end end"]));
        let endless: Vec<_> = (0..40)
            .map(|_| {
                let endless = Arc::clone(&endless);
                tokio::spawn(async move { endless.attempt(&delivery()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let healthy = lambda(&pool, &["return function () end"]);
        assert!(healthy.attempt(&delivery()).await.is_ok());
        let running = endless.iter().filter(|task| !task.is_finished()).count();
        assert!(running > 20, "{running} of 40 run yet");
    }
}
