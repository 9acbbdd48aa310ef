//! Shared by the measurements: servers, stored events, and waiting until all are acked.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use e2e::{Cluster, Store};
use futures::{StreamExt as _, TryStreamExt as _};
use hookline_shared::subject;
use redis::AsyncCommands as _;
use serde_json::{Value, json};

/// The subject of the measured events.
pub const SUBJECT: &str = "hookline.events.default.crud.consumers";
/// The subject of events that match no measured hook.
pub const OTHER_SUBJECT: &str = "hookline.events.default.crud.services";
/// Publishes in flight.
const PUBLISHES: usize = 256;
/// How often the consumer's state is polled.
const POLL: Duration = Duration::from_millis(5);
/// Clock ticks per second in `/proc` on Linux.
const TICKS: f64 = 100.0;
/// The longest time without progress.
const STUCK: Duration = Duration::from_secs(30);

/// Servers and a gateway; dispatchers are added once events are stored. NATS does not sync each write:
/// these measurements read events that are stored already.
pub async fn cluster() -> Result<Cluster> {
    let builder = Cluster::builder()
        .dispatchers(0)
        .gateway_env("HOOKLINE_WORKSPACE_HOOKS", "1000000");
    builder.nats_store(Store::Unsynced).start().await
}

/// An event of about 200 bytes, like a CRUD event.
#[must_use]
pub fn event(number: u64) -> Vec<u8> {
    let event = json!({"operation": "create", "schema": "consumers", "entity": {
        "id": format!("00000000-0000-4000-8000-{number:012}"), "created_at": 1_627_581_878,
        "type": 0, "username": format!("user-{number}"), "custom_id": "0123456789"}});
    event.to_string().into_bytes()
}

pub async fn store(context: &jetstream::Context, subject: &str, events: u64) -> Result<()> {
    let publishes = futures::stream::iter(0..events).map(|number| async move {
        let stored = context.publish(subject.to_owned(), event(number).into());
        stored.await?.await?;
        anyhow::Ok(())
    });
    publishes
        .buffer_unordered(PUBLISHES)
        .try_collect::<()>()
        .await
        .context("cannot store the events")
}

/// The time from a consumer's first message until all are acked, by the server's count.
pub async fn drained(
    context: &jetstream::Context,
    stream: &str,
    consumer: &str,
) -> Result<Duration> {
    let stream = context.get_stream_no_info(stream).await?;
    let (mut started, mut seen, mut since) = (None, (0, 0), Instant::now());
    loop {
        if let Ok(info) = stream.consumer_info(consumer).await {
            let delivered = info.delivered.consumer_sequence;
            if delivered > 0 {
                started.get_or_insert_with(Instant::now);
            }
            let open = info.num_pending + info.num_ack_pending as u64;
            if let Some(started) = started.filter(|_| open == 0) {
                return Ok(started.elapsed());
            }
            if seen != (delivered, open) {
                (seen, since) = ((delivered, open), Instant::now());
            }
        }
        ensure!(
            since.elapsed() < STUCK,
            "no progress in 30 s, {} messages are open",
            seen.1
        );
        tokio::time::sleep(POLL).await;
    }
}

/// [`drained`] for the dispatchers' consumer.
pub async fn events_drained(cluster: &Cluster) -> Result<Duration> {
    drained(
        &cluster.nats.jetstream(),
        subject::EVENTS_STREAM,
        subject::DISPATCHERS_CONSUMER,
    )
    .await
}

#[must_use]
pub fn hook(handler: &str, config: Value) -> Value {
    json!({"source": "crud", "event": "consumers", "handler": handler, "config": config})
}

#[must_use]
pub fn webhook(url: &str) -> Value {
    json!({"url": url, "secret": "measured with both signatures"})
}

/// Events per second.
pub fn rate(events: u64, took: Duration) -> Result<f64> {
    ensure!(!took.is_zero(), "the run took no time");
    Ok(events as f64 / took.as_secs_f64())
}

/// Bytes in Redis of all keys that match a pattern.
pub async fn redis_memory(url: &str, pattern: &str) -> Result<f64> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut found = Vec::new();
    let mut keys = connection.scan_match::<_, String>(pattern).await?;
    while let Some(key) = keys.next_item().await {
        found.push(key?);
    }
    drop(keys);
    let mut bytes = 0.0;
    for part in found.chunks(1_000) {
        let mut usages = redis::pipe();
        for key in part {
            usages.cmd("MEMORY").arg("USAGE").arg(key);
        }
        let usages: Vec<Option<f64>> = usages.query_async(&mut connection).await?;
        bytes += usages.into_iter().flatten().sum::<f64>();
    }
    Ok(bytes)
}

/// The sum of a metric over all dispatchers.
pub async fn metric(cluster: &Cluster, name: &str) -> Result<f64> {
    cluster.dispatchers_metric(name, &[]).await
}

/// The dispatchers' processor time in seconds, to a hundredth; their own metric has whole seconds.
pub fn processor_time(cluster: &Cluster) -> Result<f64> {
    let mut seconds = 0.0;
    for dispatcher in &cluster.dispatchers {
        let path = format!("/proc/{}/stat", dispatcher.process().pid()?);
        let stat = std::fs::read_to_string(path)?;
        // The name, in parentheses, may contain anything. Fields 14 and 15 are user and kernel time.
        let (_, fields) = stat
            .rsplit_once(')')
            .context("/proc/<pid>/stat has no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        seconds += ticks / TICKS;
    }
    Ok(seconds)
}
