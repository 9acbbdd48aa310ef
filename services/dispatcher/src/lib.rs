//! A dispatcher: takes events from JetStream, matches hooks, and delivers. The folders are the steps of a
//! delivery, see ARCHITECTURE.md.

mod admission;
mod attempt;
mod claims;
mod cluster;
mod config;
mod delivery;
mod handler;
mod hooks;
mod intake;
mod metrics;
mod nats;
mod redis;
mod settle;
mod upkeep;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use axum::Router;
use hookline_shared::lua::Limits;
use hookline_shared::queues::Queues;
use hookline_shared::service_metrics::ServiceMetrics;
use hookline_shared::status::{self, Readiness};
use hookline_shared::supervisor::Supervisor;
use hookline_shared::unreadable::{self, Reads};
use hookline_shared::{batch, clock, connection, egress, keyring, streams, subject, telemetry};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{Command, Config};

use crate::redis::client::RedisClient;
use cluster::Cluster;
use handler::clients::Clients;
use handler::code_pool::{self, Pool};
use handler::preparation::Shared;
use hooks::Index;
use metrics::Metrics;
use worker::{Parts, WRITERS, Worker};

pub const SERVICE: &str = "dispatcher";
const READS: Reads = Reads {
    service: SERVICE,
    consumers: &[
        (subject::EVENTS_STREAM, subject::DISPATCHERS_CONSUMER),
        (subject::DELIVERIES_STREAM, subject::RETRIES_CONSUMER),
        (subject::DELIVERIES_STREAM, subject::FANOUT_CONSUMER),
    ],
    streams: &[
        subject::BUCKET_STREAM,
        subject::EVENTS_STREAM,
        subject::DELIVERIES_STREAM,
    ],
};
/// How long a start waits for Redis before it goes on without it.
const REDIS_WAIT: Duration = Duration::from_secs(10);
/// Between looks at the state of a connection.
const LOOK: Duration = Duration::from_millis(100);
/// How much longer than its limit a hook's code may take before its thread is given up. A template's limits allow some
/// 0.2 s.
const STUCK: Duration = Duration::from_secs(5);

/// Everything with metrics.
struct Measured {
    metrics: Metrics,
    of_service: ServiceMetrics,
    batches: [batch::Metrics; WRITERS.len()],
    queues: Queues,
}

impl Measured {
    fn register(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        Ok(Self {
            metrics: Metrics::register(registry, config.hook_metrics as usize)?,
            of_service: ServiceMetrics::register(registry, SERVICE)?,
            batches: batch::Metrics::register(registry, WRITERS)?,
            queues: Queues::register(registry)?,
        })
    }
}

/// Runs a dispatcher until `shutdown`, then finishes what is in flight.
pub async fn run(
    config: Config,
    status: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    hookline_shared::tls::install_provider();
    config.hooks.allowances.apply();
    config.hooks.keyring.apply()?;
    // Before the cluster's settings are made of it.
    config.attempts.proxy()?;
    let registry = telemetry::registry()?;
    let measured = Measured::register(&registry, &config)?;
    let metrics = measured.metrics;
    let readiness = Readiness::waiting_for(&["nats", "redis", "hooks", "lanes"]);
    let health = Readiness::default();
    let mut supervisor = Supervisor::new(health.clone());
    let stopped = CancellationToken::new();
    let _stop_status = stopped.clone().drop_guard();
    let status = status::serve(
        status,
        registry.clone(),
        readiness.clone(),
        health.clone(),
        Router::new(),
        stopped,
    );
    supervisor.spawn("status API", status);

    let (redis, keep_up) = RedisClient::new(&config.redis.url()?, metrics.clone())?;
    supervisor.spawn("Redis client", keep_up);
    let (context, asking) = match connect(&config, &shutdown).await {
        Err(streams::Error::Connection(connection::Error::Stopped)) => return Ok(()),
        connected => connected?,
    };
    let connection = watch_connection(context.client(), readiness.clone(), measured.of_service);
    supervisor.spawn("connection watch", connection);
    spawn_client_watch(&mut supervisor, &config, [&context, &asking]);
    let joined = Cluster::join(&config, &context, redis.clone(), &shutdown).await;
    let cluster = match joined {
        Err(cluster::Error::Connection(connection::Error::Stopped)) => return Ok(()),
        joined => joined?,
    };
    supervisor.spawn(
        "streams",
        streams::keep(context.clone(), config.streams.clone()),
    );
    supervisor.spawn("clock", clock::follow(context.client()));
    let shared = shared(&config, &metrics, &health)?;
    let defaults = config.hook_defaults();
    let index = Index::new(context.clone(), shared, defaults, metrics.clone());
    hooks::Gauges::register(&registry, &index, metrics.per_hook())?;
    supervisor.spawn("hook watch", Arc::clone(&index).follow());
    let queues = measured.queues.clone();
    let follow = queues.follow(asking.client(), subject::HOOKS_REVISION);
    supervisor.spawn("queue watch", follow);
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        stopped = supervisor.stopped() => return Err(stopped.into()),
        () = ready(&redis, &index, &readiness) => {}
    }
    keyring::check()?;
    supervisor.spawn("keyring", keyring::follow());
    cluster.check_redis().await?;
    supervisor.spawn("cluster watch", cluster.clone().watch());

    let parts = Parts {
        config: &config,
        context: &context,
        asking: &asking,
        batches: measured.batches,
        metrics,
        queues: measured.queues,
        redis,
        cluster,
        index,
        health,
    };
    let worker = Worker::start(parts, &mut supervisor).await?;
    readiness.ready("lanes");
    tracing::info!("ready");
    let stopped = tokio::select! {
        () = shutdown.cancelled() => None,
        stopped = supervisor.stopped() => Some(stopped),
    };
    worker.stop(config.shutdown_timeout, &mut supervisor).await;
    stopped.map_or(Ok(()), |stopped| Err(stopped.into()))
}

/// Makes this dispatcher's settings and its Redis the cluster's.
pub async fn replace_settings(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    hookline_shared::tls::install_provider();
    config.attempts.proxy()?;
    let metrics = Metrics::register(&telemetry::registry()?, 0)?;
    let (redis, keep_up) = RedisClient::new(&config.redis.url()?, metrics)?;
    let mut supervisor = Supervisor::new(Readiness::default());
    supervisor.spawn("Redis client", keep_up);
    let (context, _) = connect(&config, &shutdown).await?;
    for (stream, consumer) in READS.consumers {
        streams::set_ack_wait(&context, stream, consumer, config.lanes.ack_wait).await?;
    }
    redis_up(&redis, &Readiness::default()).await;
    Cluster::replace(&config, &context, redis, &shutdown).await?;
    Ok(())
}

/// The main connection, and one for requests about a long stream: some keep the server busy for a second, and their
/// connection with it.
async fn connect(
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<(jetstream::Context, jetstream::Context), streams::Error> {
    let connect = async |name: &str| {
        let client = connection::connect(&config.nats, SERVICE, name, shutdown);
        client.await.map(jetstream::new)
    };
    let context = connect(&config.node()).await?;
    streams::ensure(&context, &config.streams, shutdown).await?;
    clock::measure(&context.client()).await;
    let asking = connect(&format!("{} asking", config.node())).await?;
    Ok((context, asking))
}

fn spawn_client_watch(
    supervisor: &mut Supervisor,
    config: &Config,
    contexts: [&jetstream::Context; 2],
) {
    let clients = contexts.map(jetstream::Context::client).into();
    let health = supervisor.health();
    let watch = unreadable::watch(config.nats.clone(), clients, READS, health);
    supervisor.spawn("NATS client", watch);
}

fn shared(config: &Config, metrics: &Metrics, health: &Readiness) -> anyhow::Result<Shared> {
    let attempts = &config.attempts;
    let policy = egress::Policy::new(&attempts.egress_allow);
    let proxy = attempts.proxy()?;
    let limits = Limits {
        time: attempts.lambda_time,
        memory: usize::try_from(attempts.lambda_memory)?,
    };
    let pool = |name, limit| code_pool::Settings {
        name,
        patience: limit + STUCK,
        metrics: metrics.clone(),
        health: health.clone(),
    };
    Ok(Shared {
        clients: Arc::new(Clients::new(&policy, attempts.connect_timeout, proxy)?),
        scripts: Pool::start(pool("scripts", limits.time))?,
        templates: Pool::start(pool("templates", Duration::ZERO))?,
        limits,
        timeout: attempts.timeout,
    })
}

/// Reports whether NATS is connected.
async fn watch_connection(
    client: async_nats::Client,
    readiness: Readiness,
    metrics: ServiceMetrics,
) {
    loop {
        let connected = client.connection_state() == State::Connected;
        metrics.nats_connected(connected);
        if connected {
            readiness.ready("nats");
        } else {
            readiness.missing("nats", "not connected");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for the hooks, and for a while for Redis, which must not stop deliveries if it stays away.
async fn ready(redis: &RedisClient, index: &Index, readiness: &Readiness) {
    if !redis_up(redis, readiness).await {
        tracing::warn!("starting without Redis: repeats are possible");
        readiness.ready("redis");
    }
    while let Err(error) = index.catch_up().await {
        tracing::warn!(%error, "the hooks are not known yet");
        tokio::time::sleep(LOOK).await;
    }
    readiness.ready("hooks");
}

/// Waits for a while. False: Redis did not answer.
async fn redis_up(redis: &RedisClient, readiness: &Readiness) -> bool {
    let up = async {
        while !redis.is_up() {
            readiness.missing("redis", "does not answer");
            tokio::time::sleep(LOOK).await;
        }
        readiness.ready("redis");
    };
    tokio::time::timeout(REDIS_WAIT, up).await.is_ok()
}
