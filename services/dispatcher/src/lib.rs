//! A dispatcher: takes events from JetStream, matches hooks, and delivers.
//!
//! ```text
//! consumer -> dispatch -> accept -> handler.attempt -> settle
//! ```
//!
//! * [`consumer`] pulls, as far as a lane has permits; [`inflight`] keeps messages alive;
//! * [`index`] knows the hooks; [`dispatch`] takes one message through the steps;
//! * [`room`] keeps hooks apart; [`accept`] claims deliveries in Redis, through [`coordinator`];
//! * [`gate`], [`circuit`] and [`marks`] say what else holds a delivery back;
//! * [`handler`] makes attempts, within [`egress`];
//! * [`settle`] alone acks, parks and buries; [`pause`] stops a hook whose receiver is gone;
//! * [`outbox`] purges what has come through it;
//! * [`rpc`] answers gateways; [`metrics`] and [`config`] are what their names say.

pub mod accept;
pub mod circuit;
pub mod config;
pub mod consumer;
pub mod coordinator;
pub mod dispatch;
pub mod egress;
pub mod gate;
pub mod handler;
pub mod index;
pub mod inflight;
pub mod marks;
pub mod metrics;
pub mod outbox;
pub mod parked;
pub mod pause;
pub mod redis_url;
pub mod room;
pub mod rpc;
pub mod settle;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::PullConsumer};
use hookline_shared::batch::{self, Writer};
use hookline_shared::lua::Limits;
use hookline_shared::status::{self, Readiness};
use hookline_shared::{streams, subject, telemetry};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::Config;

use accept::Accept;
use consumer::{Lane, Weight};
use coordinator::Coordinator;
use dispatch::{Dispatch, EventLane, RetryLane};
use index::{Defaults, Index};
use inflight::InFlight;
use metrics::Metrics;
use outbox::Outbox;
use parked::Parked;
use room::{Kind, LaneRoom};
use settle::Settle;

/// How long a first attempt waits for its hook's permit before it is parked.
const EVENT_PATIENCE: Duration = Duration::from_millis(100);
/// The same for what was parked already: schedules fall due in bursts of a second.
const RETRY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a start waits for Redis before it goes on without.
const REDIS_WAIT: Duration = Duration::from_secs(10);
/// The pause between looks at something that is not there yet.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last messages to NATS may take at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// Installs the process's TLS provider. Further calls do nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Runs a dispatcher until `shutdown`, then finishes what is in flight.
///
/// # Errors
/// If it cannot start: a setting is wrong, or NATS refuses the streams.
pub async fn run(
    config: Config,
    status: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    install_crypto();
    let registry = telemetry::registry()?;
    let metrics = Metrics::register(&registry)?;
    let readiness = Readiness::waiting_for(&["nats", "redis", "hooks"]);
    let stopped = CancellationToken::new();
    let _stop_status = stopped.clone().drop_guard();
    tokio::spawn(status::serve(
        status,
        registry.clone(),
        readiness.clone(),
        stopped,
    ));

    let redis = Coordinator::new(&config.redis.url()?, metrics.clone())?;
    let accept = Accept::new(redis.clone(), config.redis.claims(), metrics.clone());
    let client = match streams::connect(&config.nats, "hookline-dispatcher", &shutdown).await {
        Err(streams::Error::Stopped) => return Ok(()),
        client => client?,
    };
    let context = jetstream::new(client.clone());
    match streams::ensure(&context, &config.nats, &shutdown).await {
        Err(streams::Error::Stopped) => return Ok(()),
        done => done?,
    }
    readiness.ready("nats");

    let shared = shared(&config)?;
    let defaults = Defaults {
        policy: config.retry_policy(),
        concurrency: config.hooks.hook_concurrency,
        circuit: config.hooks.circuit_breaker,
        rate_limit: config.hooks.rate_limit,
    };
    let index = Index::new(context.clone(), shared, defaults, metrics.clone());
    let background = TaskTracker::new();
    let watched = Arc::clone(&index);
    let mut watch = background.spawn(async move { watched.follow().await });
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = ready(&redis, &index, &readiness) => {}
    }

    let worker = Worker::start(&config, &context, &registry, accept, index, metrics).await?;
    tracing::info!("ready");
    let lost = tokio::select! {
        () = shutdown.cancelled() => false,
        _ = &mut watch => true,
    };
    worker.stop(config.shutdown_timeout).await;
    anyhow::ensure!(!lost, "the watch on the hooks ended");
    watch.abort();
    Ok(())
}

fn shared(config: &Config) -> anyhow::Result<handler::Shared> {
    let attempts = &config.attempts;
    let policy = egress::Policy::new(&attempts.egress_allow);
    let memory = usize::try_from(attempts.lambda_memory)?;
    Ok(handler::Shared {
        clients: Arc::new(handler::Clients::new(&policy, attempts.connect_timeout)?),
        lua: handler::Pool::start(Limits {
            time: attempts.lambda_time,
            memory,
        })?,
        timeout: attempts.timeout,
    })
}

/// Waits for the hooks, and for Redis as long as that makes sense: a Redis that stays away must
/// not stop deliveries.
async fn ready(redis: &Coordinator, index: &Index, readiness: &Readiness) {
    let redis = async {
        while !redis.is_up() {
            readiness.missing("redis", "does not answer");
            tokio::time::sleep(LOOK).await;
        }
        readiness.ready("redis");
    };
    if tokio::time::timeout(REDIS_WAIT, redis).await.is_err() {
        tracing::warn!("starting without Redis: repeats are possible");
        readiness.ready("redis");
    }
    while let Err(error) = index.catch_up().await {
        tracing::warn!(%error, "the hooks are not known yet");
        tokio::time::sleep(LOOK).await;
    }
    readiness.ready("hooks");
}

/// What runs while a dispatcher works.
struct Worker {
    client: async_nats::Client,
    accept: Accept,
    in_flight: InFlight,
    tasks: TaskTracker,
    pulling: CancellationToken,
    lanes: TaskTracker,
}

impl Worker {
    async fn start(
        config: &Config,
        context: &jetstream::Context,
        registry: &Registry,
        accept: Accept,
        index: Arc<Index>,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let client = context.client();
        let writer = |name: &str| -> anyhow::Result<Writer> {
            Ok(Writer::spawn(
                client.clone(),
                Some(batch::Metrics::register(registry, name)?),
            ))
        };
        let pauser = pause::Pauser::new(context.clone(), writer("bucket")?);
        let (deliveries, dead) = (writer("deliveries")?, writer("dead")?);
        let settle = Settle::new(
            deliveries,
            Parked::new(context.clone()),
            dead,
            accept.clone(),
            pauser,
            metrics.clone(),
        );
        let dispatch = Arc::new(Dispatch {
            index: Arc::clone(&index),
            accept: accept.clone(),
            settle,
            outbox: Outbox::default(),
            metrics: metrics.clone(),
        });
        let worker = Self {
            in_flight: InFlight::new(client.clone()),
            client: client.clone(),
            accept,
            tasks: TaskTracker::new(),
            pulling: CancellationToken::new(),
            lanes: TaskTracker::new(),
        };
        let (in_flight, leases) = (worker.in_flight.clone(), worker.accept.clone());
        let ack_wait = config.lanes.ack_wait;
        tokio::spawn(async move { in_flight.keep_alive(ack_wait).await });
        tokio::spawn(async move { leases.keep_leases().await });
        let (outbox, bucket) = (dispatch.outbox.clone(), context.clone());
        tokio::spawn(async move { outbox.purge(&bucket).await });
        worker
            .lanes
            .spawn(rpc::serve(client.clone(), index, worker.pulling.clone()));

        let (events, retries) = consumers(context, ack_wait).await?;
        let permits = config.lanes.event_permits;
        let work = EventLane {
            dispatch: Arc::clone(&dispatch),
            room: LaneRoom::new(Kind::Events, permits as usize, EVENT_PATIENCE),
        };
        worker.lane("events", events, permits, &metrics, work);
        let permits = config.lanes.retry_permits;
        let work = RetryLane {
            dispatch,
            room: LaneRoom::new(Kind::Retries, permits as usize, RETRY_PATIENCE),
        };
        worker.lane("retries", retries, permits, &metrics, work);
        Ok(worker)
    }

    fn lane(
        &self,
        name: &'static str,
        consumer: PullConsumer,
        permits: u32,
        metrics: &Metrics,
        work: impl consumer::Work,
    ) {
        let lane = Lane {
            name,
            consumer,
            permits: Arc::new(Semaphore::new(permits as usize)),
            weight: Weight::default(),
            in_flight: self.in_flight.clone(),
            tasks: self.tasks.clone(),
            gauge: metrics.in_flight(name),
        };
        self.lanes
            .spawn(lane.run(Arc::new(work), self.pulling.clone()));
    }

    /// Stops pulling, gives unstarted messages back, finishes what is in flight within the
    /// deadline and gives back what is not finished then.
    async fn stop(self, deadline: Duration) {
        self.pulling.cancel();
        self.lanes.close();
        self.tasks.close();
        let finished = async {
            self.lanes.wait().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(deadline, finished).await.is_err() {
            let count = self.in_flight.give_back().await;
            self.accept.release_all().await;
            tracing::warn!(
                count,
                "the deadline passed, what was in flight is given back"
            );
        }
        if tokio::time::timeout(FLUSH, self.client.flush())
            .await
            .is_err()
        {
            tracing::warn!("NATS did not take the last acks, those deliveries may be repeated");
        }
    }
}

/// The consumers that all dispatchers share: events, and parked deliveries that fell due.
async fn consumers(
    context: &jetstream::Context,
    ack_wait: Duration,
) -> Result<(PullConsumer, PullConsumer), streams::Error> {
    let events = streams::ensure_consumer(
        context,
        subject::EVENTS_STREAM,
        subject::DISPATCHERS_CONSUMER,
        subject::EVENT_SUBJECTS,
        ack_wait,
    );
    let retries = streams::ensure_consumer(
        context,
        subject::DELIVERIES_STREAM,
        subject::RETRIES_CONSUMER,
        subject::DUE_SUBJECTS,
        ack_wait,
    );
    Ok((events.await?, retries.await?))
}
