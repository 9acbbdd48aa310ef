//! Endpoints that fail, and come back.

use anyhow::Result;
use e2e::{Cluster, wire};

use crate::chaos::endpoint::Mood;
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{Size, Stage};

/// The permits of a hook on one dispatcher.
const PERMITS: usize = 32;
/// Dispatchers of these rows.
const DISPATCHERS: usize = 2;

pub(super) async fn down(name: &str, size: Size) -> Result<Row> {
    let cluster = Cluster::builder().dispatchers(DISPATCHERS).start().await?;
    let stage = Stage::set(cluster, &[Mood::Well, Mood::Well], size).await?;
    let mut evidence = Evidence::default();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let sick = &stage.endpoints[0];
    sick.set(Mood::Failing);
    evidence.mark(stage.began, "down");
    tokio::time::sleep(size.fault * 2).await;
    let (_, missed) = sick.ledger.open();
    sick.set(Mood::Well);
    evidence.mark(stage.began, "well");
    evidence.observed = (missed > 0).then(|| format!("{missed} events waited at its end"));
    tokio::time::sleep(size.calm).await;
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let most = sick.most_in_flight();
    evidence.require(most <= PERMITS * DISPATCHERS, || {
        format!("{most} requests were in flight at once")
    });
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}

/// Answers that are none are classified and retried; memory stays flat.
pub(super) async fn bad_answers(name: &str, size: Size) -> Result<Row> {
    let moods = [
        Mood::Well,
        Mood::Breaking,
        Mood::Babbling,
        Mood::Endless,
        Mood::Pompous,
    ];
    let cluster = Cluster::builder().dispatchers(DISPATCHERS).start().await?;
    let stage = Stage::set(cluster, &moods, size).await?;
    let mut evidence = Evidence::default();
    let load = stage.load_of(size.rate / 5).await?;
    tokio::time::sleep(size.calm + size.fault).await;
    let offered = load.stop().await?;
    stage.settle(&[0]).await;
    let memory = stage.metric("process_resident_memory_bytes", &[]).await / (1 << 20) as f64;
    let limit = 150.0 * DISPATCHERS as f64;
    evidence.require(memory <= limit, || format!("{memory:.0} MiB of memory"));
    let calls: Vec<_> = stage.endpoints[1..].iter().map(|e| e.requests()).collect();
    // A body without end counts by its status, so its first answers are final: 500, retried.
    let nats = &stage.cluster.nats;
    let (parked, dead) = (
        nats.count(wire::DELIVERIES).await?,
        nats.count(wire::DEAD).await?,
    );
    evidence.dead = dead;
    let sent: usize = stage.endpoints[1..]
        .iter()
        .map(|endpoint| endpoint.ledger.entries().len())
        .sum();
    let pings = stage.endpoints.len() - 1;
    evidence.require((parked + dead) as usize == sent + pings, || {
        format!("{parked} parked and {dead} dead of {sent} with {pings} pings")
    });
    evidence.observed = calls
        .iter()
        .all(|calls| *calls > 0)
        .then(|| format!("{calls:?} bad answers; {memory:.0} MiB in {DISPATCHERS} dispatchers"));
    let row = Row::reconcile(name, &[&stage.endpoints[0]], offered, evidence, stage.began);
    stage.cluster.finish_unchecked().await?;
    Ok(row)
}
