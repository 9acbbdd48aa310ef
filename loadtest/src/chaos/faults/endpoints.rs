//! Endpoints that fail and recover, and endpoints that answer with garbage.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Result;
use e2e::{Authority, Cluster, Validity};

use crate::chaos::endpoint::{Endpoint, Mood};
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{Size, Stage};

/// A hook's permits on one dispatcher.
const PERMITS: usize = 32;
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
    let well = Instant::now();
    evidence.mark(stage.began, "well");
    tokio::time::sleep(size.calm).await;
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let most = sick.most_in_flight();
    evidence.require(most <= PERMITS * DISPATCHERS, || {
        format!("{most} requests were in flight at once")
    });
    let busiest = busiest_second(sick, well);
    evidence.require(busiest <= (missed / 5).max(size.rate as usize), || {
        format!("{busiest} arrived within a second of its recovery")
    });
    evidence.observed = (missed > 0).then(|| {
        format!(
            "{missed} events waited at its end; {busiest} arrived in the busiest second after it"
        )
    });
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}

/// The most first arrivals within one second after `since`.
fn busiest_second(endpoint: &Endpoint, since: Instant) -> usize {
    let mut seconds = HashMap::new();
    let entries = endpoint.ledger.entries();
    for at in entries.iter().filter_map(|entry| entry.first) {
        if let Some(after) = at.checked_duration_since(since) {
            *seconds.entry(after.as_secs()).or_insert(0) += 1;
        }
    }
    seconds.into_values().max().unwrap_or(0)
}

/// Invalid answers are retried, and memory stays flat.
pub(super) async fn bad_answers(name: &str, size: Size) -> Result<Row> {
    let moods = [
        Mood::Well,
        Mood::Breaking,
        Mood::Babbling,
        Mood::Endless,
        Mood::Pompous,
    ];
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path())?;
    let cluster = Cluster::builder()
        .dispatchers(DISPATCHERS)
        .dispatcher_env("SSL_CERT_FILE", &authority.file().display().to_string())
        .start()
        .await?;
    let mut stage = Stage::set(cluster, &moods, size).await?;
    let mut hidden = Endpoint::start(Mood::Well).await?;
    let expired = authority.front(hidden.port()?, Validity::Expired).await?;
    hidden.url = format!("https://localhost:{}/", expired.port());
    stage.add(hidden).await?;
    let mut evidence = Evidence::default();
    let load = stage.load_of(size.rate / 5).await?;
    tokio::time::sleep(size.calm + size.fault).await;
    let offered = load.stop().await?;
    stage.settle(&[0]).await;
    let memory = stage.metric("process_resident_memory_bytes", &[]).await / (1 << 20) as f64;
    let limit = 150.0 * DISPATCHERS as f64;
    evidence.require(memory <= limit, || format!("{memory:.0} MiB of memory"));
    let mut calls: Vec<_> = stage.endpoints[1..moods.len()]
        .iter()
        .map(Endpoint::requests)
        .collect();
    calls.push(expired.connections());
    let let_in = stage.endpoints[moods.len()].requests();
    evidence.require(let_in == 0, || {
        format!("{let_in} requests despite an expired certificate")
    });
    // An endless body counts by its status, here 500, so it is retried.
    evidence.dead = stage.kept(1).await?.dead as u64;
    evidence.observed = calls
        .iter()
        .all(|calls| *calls > 0)
        .then(|| format!("{calls:?} bad answers; {memory:.0} MiB in {DISPATCHERS} dispatchers"));
    let row = Row::reconcile(name, &[&stage.endpoints[0]], offered, evidence, stage.began);
    stage.cluster.finish_unchecked().await?;
    Ok(row)
}
