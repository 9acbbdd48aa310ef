//! Dispatchers that are killed, frozen and restarted.

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::Cluster;

use crate::chaos::endpoint::Mood;
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{Size, Stage};

/// The dispatchers' lease.
const LEASE: Duration = Duration::from_secs(6);
/// Time between two kills.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a killed dispatcher's last requests may wait to be read by the endpoint.
const UNREAD: Duration = Duration::from_millis(250);
/// Lateness allowed for deliveries that a killed dispatcher held.
const LATEST: Duration = Duration::from_secs(10);

async fn three(size: Size) -> Result<Stage> {
    let cluster = Cluster::builder().dispatchers(3).start().await?;
    Stage::set(cluster, &[Mood::Well, Mood::Well], size).await
}

pub(super) async fn kill(name: &str, size: Size) -> Result<Row> {
    let mut stage = three(size).await?;
    let mut evidence = Evidence {
        allows_repeats: true,
        ..Evidence::default()
    };
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let end = Instant::now() + size.fault;
    let mut kills = 0_usize;
    while Instant::now() < end {
        // Not in turn, yet the same in every run.
        let victim = (kills * 7 + kills / 3) % 3;
        let killed = Instant::now();
        let dispatcher = &mut stage.cluster.dispatchers[victim];
        dispatcher.process_mut().kill();
        evidence.mark(stage.began, "kill");
        dispatcher.start()?;
        // Deliveries in flight at the kill repeat once their lease has expired.
        evidence.repeats.push((killed - LEASE, killed + UNREAD));
        kills += 1;
        tokio::time::sleep(PERIOD).await;
    }
    evidence.observed = (kills > 0).then(|| format!("{kills} kills"));
    tokio::time::sleep(size.calm).await;
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let mut row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    if row.late_max > LATEST {
        row.broken
            .push(format!("the latest was {:?} late", row.late_max));
    }
    stage.cluster.finish().await?;
    Ok(row)
}

pub(super) async fn freeze(name: &str, size: Size) -> Result<Row> {
    let stage = three(size).await?;
    let mut evidence = Evidence {
        allows_repeats: true,
        ..Evidence::default()
    };
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let frozen = Instant::now();
    stage.cluster.dispatchers[0].process().freeze()?;
    evidence.mark(stage.began, "stop");
    tokio::time::sleep(LEASE + Duration::from_secs(6)).await;
    stage.cluster.dispatchers[0].process().thaw()?;
    evidence.mark(stage.began, "continue");
    let asleep = frozen.elapsed();
    evidence.observed = (asleep > LEASE).then(|| format!("stopped for {asleep:.1?}"));
    // Requests whose answers the frozen dispatcher could not read.
    evidence
        .repeats
        .push((frozen - LEASE, frozen + Duration::from_secs(1)));
    tokio::time::sleep(size.calm).await;
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let lost = stage
        .metric("hookline_deliveries_total", &[("outcome", "dead")])
        .await;
    evidence.require(lost == 0.0, || format!("{lost} dead letters"));
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}

pub(super) async fn rolling(name: &str, size: Size) -> Result<Row> {
    let mut stage = three(size).await?;
    let mut evidence = Evidence::default();
    let load = stage.load().await?;
    tokio::time::sleep(size.calm).await;
    let mut restarts = 0;
    for dispatcher in &mut stage.cluster.dispatchers {
        dispatcher.stop().await?;
        evidence.mark(stage.began, "restart");
        dispatcher.start()?;
        dispatcher.ready().await?;
        restarts += 1;
        tokio::time::sleep(size.calm).await;
    }
    evidence.observed = (restarts == 3).then(|| "3 restarts".to_owned());
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}
