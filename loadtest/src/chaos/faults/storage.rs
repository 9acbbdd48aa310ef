//! Storage that runs out, then has room again.

use std::time::{Duration, Instant};

use anyhow::Result;
use async_nats::jetstream;
use e2e::{Cluster, Store, eventually, wire};
use serde_json::json;

use crate::chaos::endpoint::{Endpoint, Mood, SECRET};
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{Size, Stage};

/// Time allowed for acked events to be purged.
const TRIMMED: Duration = Duration::from_secs(3);
/// The server's storage, in bytes.
const STORE: u64 = 64 << 20;
/// The smallest allowed event stream, in bytes.
const SMALL: &str = "4194304";
/// The stream that uses up the storage.
const FILL: &str = "FILL";
/// How long there is no room: longer than a retry's delay.
const FULL: Duration = Duration::from_secs(12);

pub(super) async fn full(name: &str, size: Size) -> Result<Row> {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .nats_store(Store::Server(STORE))
        .gateway_env("HOOKLINE_EVENTS_MAX_BYTES", "16777216")
        .dispatcher_env("HOOKLINE_EVENTS_MAX_BYTES", "16777216")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "6s,6s,6s,6s,6s,6s,6s,6s,6s,6s")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "0,1,5s")
        .start()
        .await?;
    let stage = Stage::set(cluster, &[Mood::Well, Mood::Failing], size).await?;
    let mut evidence = Evidence {
        allows_repeats: true,
        ..Evidence::default()
    };
    let load = stage.load_of(size.rate.min(200)).await?;
    tokio::time::sleep(size.calm).await;

    let context = stage.cluster.nats.jetstream();
    let began = std::time::Instant::now();
    fill(&context).await?;
    evidence.mark(stage.began, "full");
    let refusal = refusal(&context).await;
    let stored = stage.cluster.nats.count("HOOKLINE_DELIVERIES").await?;
    tokio::time::sleep(FULL).await;
    context.delete_stream(FILL).await?;
    evidence.mark(stage.began, "room");
    stage.endpoints[1].set(Mood::Well);
    evidence.require(refusal.is_some(), || {
        "publishers were not refused".to_owned()
    });
    evidence.require(stored > 0, || "no delivery waited".to_owned());
    evidence.observed =
        refusal.map(|error| format!("{stored} deliveries waited; publishers got: {error}"));
    // Deliveries that could not be settled are attempted again.
    let now = std::time::Instant::now();
    evidence.repeats.push((
        began - Duration::from_secs(10),
        now + Duration::from_secs(60),
    ));

    tokio::time::sleep(size.calm).await;
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let swept = stage.metric("hookline_deliveries_swept_total", &[]).await;
    if let Some(observed) = &mut evidence.observed {
        observed.push_str(&format!("; {swept} parked again by the sweeper"));
    }
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}

/// The event stream is full: publishers and the Admin API are refused, and events accepted before that
/// are delivered once dispatchers pull again.
pub(super) async fn events_full(name: &str, size: Size) -> Result<Row> {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .gateway_env("HOOKLINE_EVENTS_MAX_BYTES", SMALL)
        .dispatcher_env("HOOKLINE_EVENTS_MAX_BYTES", SMALL)
        .start()
        .await?;
    let mut stage = Stage::set(cluster, &[Mood::Well, Mood::Well], size).await?;
    let changes = Endpoint::start(Mood::Well).await?;
    let hook = json!({"source": "crud", "event": "consumers:create", "handler": "webhook",
        "config": {"url": changes.url, "secret": SECRET}});
    stage.cluster.admin().create_hook(&hook).await?;
    let mut evidence = Evidence::default();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;

    let paused = Duration::from_secs(600);
    let nats = &stage.cluster.nats;
    nats.pause_consumer(wire::EVENTS, wire::DISPATCHERS, paused)
        .await?;
    // Acked events are purged a moment later, which would make room.
    tokio::time::sleep(TRIMMED).await;
    evidence.mark(stage.began, "full");
    let context = nats.jetstream();
    let refusal = refusal(&context).await;
    let (accepted, retry_after) = change_until_refused(&stage, &changes).await?;
    let full = Instant::now();
    tokio::time::sleep(FULL / 2).await;
    let taken: usize = stage
        .endpoints
        .iter()
        .map(|e| e.ledger.acknowledged_in(full..=Instant::now()))
        .sum();
    evidence.require(retry_after, || {
        "the Admin API did not answer 503 with Retry-After".to_owned()
    });
    evidence.observed = refusal.filter(|_| taken == 0).map(|error| {
        format!("publishers got: {error}; the Admin API took {accepted} changes before it refused")
    });
    nats.pause_consumer(wire::EVENTS, wire::DISPATCHERS, Duration::ZERO)
        .await?;
    evidence.mark(stage.began, "room");

    let admin = stage.cluster.admin().clone();
    let again = eventually(size.deadline, "changes are accepted again", async || {
        let consumer = json!({"username": "after"});
        admin.post("/consumers", &consumer).await?.expect(201)
    });
    evidence.require(again.await.is_ok(), || {
        "the Admin API goes on refusing changes".to_owned()
    });
    tokio::time::sleep(size.calm).await;
    let offered = load.stop().await?;
    stage.endpoints.push(changes);
    stage.settle(&[0, 1, 2]).await;
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}

/// Creates consumers until the Admin API refuses; returns how many it accepted, and whether it answered
/// 503 with `Retry-After`.
async fn change_until_refused(stage: &Stage, changes: &Endpoint) -> Result<(usize, bool)> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut number = 0;
    while Instant::now() < end {
        changes.ledger.published(number);
        let consumer = json!({"username": format!("user-{number}"),
            "custom_id": number.to_string()});
        let answer = stage.cluster.admin().post("/consumers", &consumer).await?;
        if answer.status != 201 {
            return Ok((number, answer.status == 503 && answer.retry_after.is_some()));
        }
        changes.ledger.acknowledged(number);
        number += 1;
    }
    Ok((number, false))
}

/// Uses up the server's storage, to the last kilobyte.
async fn fill(context: &jetstream::Context) -> Result<()> {
    let config = jetstream::stream::Config {
        name: FILL.to_owned(),
        subjects: vec!["fill".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await?;
    let mut bytes = vec![0; 1 << 20];
    for _ in 0..(2 * STORE) >> 10 {
        let sent = context.publish("fill", bytes.clone().into()).await?;
        if sent.await.is_err() {
            if bytes.len() <= 1 << 10 {
                return Ok(());
            }
            bytes.truncate(bytes.len() / 2);
        }
    }
    anyhow::bail!("the storage does not fill")
}

/// Publishes until the server refuses, and returns its error.
async fn refusal(context: &jetstream::Context) -> Option<String> {
    for _ in 0..(2 * STORE) >> 16 {
        let body = format!(r#"{{"filler":"{}"}}"#, "x".repeat(64 << 10));
        let subject = "hookline.events.default.nobody.hears";
        let sent = context.publish(subject, body.into()).await.ok()?;
        if let Err(error) = sent.await {
            return Some(error.to_string());
        }
    }
    None
}
