//! A million deliveries wait for an endpoint that is gone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use e2e::{Cluster, Store, admin, eventually, wire};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use crate::chaos::endpoint::Mood;
use crate::chaos::ledger::{Entry, percentile};
use crate::chaos::load::SOURCE;
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{self, Size, Stage};

const MILLION: usize = 1_000_000;
/// Unacknowledged publishes at a time.
const IN_FLIGHT: usize = 2_000;
/// Events between two readings of the dispatchers' memory.
const STEP: usize = 200_000;
/// Allowed growth of a dispatcher's memory from the first reading to the last, in bytes.
const GROWTH: f64 = (48 << 20) as f64;
/// Time allowed for the last acks.
const SETTLED: Duration = Duration::from_secs(30);
/// Time allowed for an answer of the Admin API.
const ANSWER: Duration = Duration::from_secs(1);
/// The healthy hook's load, in events per second.
const RATE: u64 = 200;
/// How long the healthy hook is measured, without and with the backlog.
const WINDOW: Duration = Duration::from_secs(20);
/// Parts of a span, whose median p99 counts.
const PARTS: u32 = 5;

/// The healthy hook's load runs throughout. NATS does not sync each write: publishing a million events
/// one sync at a time takes most of an hour.
pub(super) async fn million(name: &str, size: Size) -> Result<Row> {
    let builder = Cluster::builder().dispatchers(2);
    let cluster = builder.nats_store(Store::Unsynced).start().await?;
    let mut stage = Stage::set(cluster, &[Mood::Well, Mood::Refusing], size).await?;
    let mut evidence = Evidence::default();
    let hooks = stage.cluster.admin().list("/event-hooks").await?;
    let event = stage::event(1);
    let dead = hooks.iter().find(|hook| hook["event"] == event.as_str());
    let path = format!(
        "/event-hooks/{}/deliveries?size=10",
        admin::id(dead.context("the hook")?)?
    );
    let load = stage.only(0, RATE).await?;
    tokio::time::sleep(WINDOW).await;
    evidence.mark(stage.began, "a million");
    let calm = Instant::now();
    let memory = publish(&stage, &event).await?;
    drained(&stage).await?;
    evidence.mark(stage.began, "all wait");
    let full = Instant::now();
    tokio::time::sleep(WINDOW).await;
    let (slowest, seen) = slowest_answer(&stage, &path).await?;
    let offered = load.stop().await?;
    stage.settle(&[0]).await;

    // Without dispatchers nothing is parked again, so each delivery has exactly one message.
    for dispatcher in &mut stage.cluster.dispatchers {
        dispatcher.stop().await?;
    }
    let mut counts = Value::Null;
    let exact = eventually(SETTLED, "each is counted once", async || {
        counts = stage.cluster.admin().get(&path).await?.expect(200)?["counts"].clone();
        let count = |name: &str| counts[name].as_u64().unwrap_or_default();
        // The hook's ping waits as well.
        ensure!(count("waiting") + count("dead") == MILLION as u64 + 1);
        Ok(())
    });
    let exact = exact.await.is_ok();
    evidence.require(exact, || {
        format!("the Admin API counts {counts} of {MILLION} events and a ping")
    });
    evidence.dead = counts["dead"].as_u64().unwrap_or_default();
    evidence.require(slowest <= ANSWER, || {
        format!("the Admin API took {slowest:.1?} for an answer")
    });
    let grown = memory.last().copied().unwrap_or_default() - memory[0];
    evidence.require(grown <= GROWTH, || {
        format!("a dispatcher grew by {:.0} MiB", grown / f64::from(1 << 20))
    });
    let (without, with) = (
        p99(&stage, calm - WINDOW..calm),
        p99(&stage, full..full + WINDOW),
    );
    let meanwhile = p99(&stage, calm..full);
    let allowed = without.mul_f64(1.2).max(without + Duration::from_millis(5));
    let p99 = format!(
        "healthy p99 {without:.1?} without, {meanwhile:.1?} while events came, {with:.1?} beside"
    );
    evidence.require(with <= allowed, || p99.clone());
    evidence.observed = (seen >= MILLION as u64).then(|| {
        format!(
            "{seen} waited; API answers within {:.0} ms; a dispatcher's memory {} MiB; {p99}",
            slowest.as_secs_f64() * 1_000.0,
            memory
                .iter()
                .map(|bytes| format!("{:.0}", bytes / f64::from(1 << 20)))
                .collect::<Vec<_>>()
                .join(", "),
        )
    });
    let healthy = [&stage.endpoints[0]];
    let row = Row::reconcile(name, &healthy, offered, evidence, stage.began);
    stage.cluster.finish_unchecked().await?;
    Ok(row)
}

/// Publishes a million events; returns the larger dispatcher's memory after each step, in bytes.
#[expect(clippy::print_stdout, reason = "progress")]
async fn publish(stage: &Stage, event: &str) -> Result<Vec<f64>> {
    let client = async_nats::connect(&stage.nats).await?;
    let context = jetstream::ContextBuilder::new()
        .max_ack_inflight(2 * IN_FLIGHT)
        .build(client);
    let mut memory = Vec::new();
    for step in 0..MILLION / STEP {
        let numbers = step * STEP..(step + 1) * STEP;
        let sends = futures::stream::iter(numbers).map(|number| {
            let (context, subject) = (&context, wire::event(SOURCE, event));
            async move {
                let body = format!(r#"{{"number":{number}}}"#);
                context.publish(subject, body.into()).await?.await?;
                anyhow::Ok(())
            }
        });
        sends
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        let mut most = 0.0_f64;
        for dispatcher in &stage.cluster.dispatchers {
            let bytes = dispatcher.metric("process_resident_memory_bytes", &[]);
            most = most.max(bytes.await?);
        }
        memory.push(most);
        println!("      {} events published", (step + 1) * STEP);
    }
    Ok(memory)
}

async fn drained(stage: &Stage) -> Result<()> {
    eventually(Duration::from_secs(600), "all are parked", async || {
        let open = stage.cluster.nats.open_events().await?;
        // The healthy hook's events come and go.
        ensure!(open < RATE, "{open} are open");
        Ok(())
    })
    .await
}

/// Asks ten times; returns the longest time to an answer, and the last answer's count.
async fn slowest_answer(stage: &Stage, path: &str) -> Result<(Duration, u64)> {
    let (mut slowest, mut seen) = (Duration::ZERO, 0);
    for _ in 0..10 {
        let asked = Instant::now();
        let list = stage.cluster.admin().get(path).await?.expect(200)?;
        slowest = slowest.max(asked.elapsed());
        ensure!(list["data"].as_array().map(Vec::len) == Some(10), "{list}");
        let count = |name: &str| list["counts"][name].as_u64().unwrap_or_default();
        seen = count("waiting") + count("dead");
        ensure!(list["next"] != Value::Null, "there is no next page");
    }
    Ok((slowest, seen))
}

/// The median of the healthy hook's p99s over the parts of a span, so that a single disk stall does
/// not decide.
fn p99(stage: &Stage, span: std::ops::Range<Instant>) -> Duration {
    let entries = stage.endpoints[0].ledger.entries();
    let length = (span.end - span.start) / PARTS;
    let parts = (0..PARTS).map(|part| {
        let began = span.start + length * part;
        let inside = entries.iter().filter(|entry| {
            let published = entry.published;
            published.is_some_and(|at| (began..began + length).contains(&at))
        });
        percentile(inside.filter_map(Entry::latency).collect(), 99.0)
    });
    percentile(parts.collect(), 50.0)
}
