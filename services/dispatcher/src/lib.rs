//! A dispatcher: takes events from JetStream, matches hooks, and delivers.
//!
//! ```text
//! consumer -> dispatch -> accept -> handler.attempt -> settle
//! ```
//!
//! The folders are the steps of a delivery, see ARCHITECTURE.md.

mod admission;
mod attempt;
mod claims;
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
use hookline_shared::lua::Limits;
use hookline_shared::status::{self, Readiness};
use hookline_shared::{streams, telemetry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::Config;

use claims::Claims;
use hooks::{Defaults, Index};
use metrics::Metrics;
use redis::client::RedisClient;
use worker::{Parts, Worker};

/// How long a start waits for Redis before it goes on without.
const REDIS_WAIT: Duration = Duration::from_secs(10);
/// The pause between looks at something that is not there yet.
const LOOK: Duration = Duration::from_millis(100);

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
    let health = Readiness::default();
    let stopped = CancellationToken::new();
    let _stop_status = stopped.clone().drop_guard();
    tokio::spawn(status::serve(
        status,
        registry.clone(),
        readiness.clone(),
        health.clone(),
        stopped,
    ));

    let redis = RedisClient::new(&config.redis.url()?, metrics.clone())?;
    let accept = Claims::new(redis.clone(), config.redis.claims(), metrics.clone());
    let client = match streams::connect(&config.nats, "hookline-dispatcher", &shutdown).await {
        Err(streams::Error::Stopped) => return Ok(()),
        client => client?,
    };
    let context = jetstream::new(client.clone());
    match streams::ensure(&context, &config.nats, &shutdown).await {
        Err(streams::Error::Stopped) => return Ok(()),
        done => done?,
    }
    // The server answers some questions about a long stream for a second, and takes nothing else
    // from a connection meanwhile.
    let asking = match streams::connect(&config.nats, "hookline-dispatcher-asking", &shutdown).await
    {
        Err(streams::Error::Stopped) => return Ok(()),
        client => jetstream::new(client?),
    };
    readiness.ready("nats");

    let shared = shared(&config)?;
    let defaults = Defaults {
        policy: config.retry_policy(),
        concurrency: config.hooks.hook_concurrency,
        circuit: config.hooks.circuit_breaker,
        rate_limit: config.hooks.rate_limit,
        max_age: config.hooks.max_age,
        backlog: config.hooks.hook_backlog,
    };
    let index = Index::new(context.clone(), shared, defaults, metrics.clone());
    let background = TaskTracker::new();
    let watched = Arc::clone(&index);
    let mut watch = background.spawn(async move { watched.follow().await });
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = ready(&redis, &index, &readiness) => {}
    }

    let worker = Worker::start(Parts {
        config: &config,
        context: &context,
        asking: &asking,
        registry: &registry,
        metrics: metrics.clone(),
        accept,
        index,
        health,
    })
    .await?;
    tracing::info!("ready");
    let (watched, told) = (client.clone(), metrics.clone());
    let connection =
        tokio::spawn(async move { watch_connection(&watched, &readiness, &told).await });
    let lost = tokio::select! {
        () = shutdown.cancelled() => false,
        _ = &mut watch => true,
    };
    worker.stop(config.shutdown_timeout).await;
    connection.abort();
    anyhow::ensure!(!lost, "the watch on the hooks ended");
    watch.abort();
    Ok(())
}

fn shared(config: &Config) -> anyhow::Result<handler::Shared> {
    let attempts = &config.attempts;
    let policy = handler::egress::Policy::new(&attempts.egress_allow);
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

/// Says whether NATS is connected, for ever.
async fn watch_connection(client: &async_nats::Client, readiness: &Readiness, metrics: &Metrics) {
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

/// Waits for the hooks, and for Redis as long as that makes sense: a Redis that stays away must
/// not stop deliveries.
async fn ready(redis: &RedisClient, index: &Index, readiness: &Readiness) {
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
