//! Dispatchers that are added and removed by what a gateway says is wanted, while the load rises and falls tenfold.

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::{Cluster, Service};
use serde_json::Value;

use crate::chaos::endpoint::Mood;
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{Size, Stage};

/// Events a second at the top for one permit, so that it takes more than three dispatchers: an attempt takes 50 ms.
const PER_PERMIT: u64 = 70;
const RETRY_PERMITS: u64 = 2;
const MOST: usize = 6;
/// Between looks at what is wanted.
const LOOK: Duration = Duration::from_secs(1);
/// How long fewer must be wanted before some are stopped.
const PATIENCE: u32 = 5;
/// Long enough to stop some.
const LEAST_END: Duration = Duration::from_secs(25);
/// The latest that a delivery may be, in all.
const LATEST: Duration = Duration::from_secs(20);

pub(super) async fn elastic(name: &str, size: Size) -> Result<Row> {
    let (low, high) = (size.rate / 5, size.rate * 2);
    let permits = (high / PER_PERMIT).max(2);
    let per_worker = 2 * permits + RETRY_PERMITS;
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_WORKER_MESSAGES", &per_worker.to_string())
        .dispatcher_env("HOOKLINE_EVENT_PERMITS", &permits.to_string())
        .dispatcher_env("HOOKLINE_RETRY_PERMITS", &RETRY_PERMITS.to_string())
        .start()
        .await?;
    let mut stage = Stage::set(cluster, &[Mood::Unhurried, Mood::Unhurried], size).await?;
    let mut evidence = Evidence::default();
    let mut scaler = Scaler::default();
    let load = stage.load_of(low).await?;
    let end = (2 * size.fault).max(LEAST_END);
    for (rate, time) in [(low, size.calm), (high, size.fault), (low, end)] {
        load.set_rate(rate);
        evidence.mark(stage.began, &format!("{rate}/s"));
        scaler.follow(&mut stage, time, &mut evidence).await?;
    }
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let Scaler { most, .. } = scaler;
    let left = scaler.running;
    evidence.observed = (most > 1).then(|| format!("1 to {most} and back to {left} dispatchers"));
    evidence.require(left < most, || {
        format!("{left} of {most} dispatchers are left")
    });
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let mut row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    if row.late_max > LATEST {
        row.broken
            .push(format!("the latest was {:?} late", row.late_max));
    }
    stage.cluster.finish().await?;
    Ok(row)
}

/// What an autoscaler does: up at once, down by half after a while.
struct Scaler {
    running: usize,
    most: usize,
    /// Looks in a row at which fewer were wanted.
    fewer: u32,
}

impl Default for Scaler {
    fn default() -> Self {
        Self {
            running: 1,
            most: 1,
            fewer: 0,
        }
    }
}

impl Scaler {
    async fn follow(
        &mut self,
        stage: &mut Stage,
        time: Duration,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep(LOOK).await;
            let wanted = wanted(&stage.cluster.gateways[0]).await?.clamp(1, MOST);
            self.fewer = if wanted < self.running {
                self.fewer + 1
            } else {
                0
            };
            let next = if wanted > self.running {
                wanted
            } else if self.fewer >= PATIENCE {
                self.fewer = 0;
                wanted.max(self.running / 2)
            } else {
                continue;
            };
            evidence.mark(stage.began, &format!("{} to {next}", self.running));
            scale(&mut stage.cluster, self.running, next).await?;
            self.running = next;
            self.most = self.most.max(next);
        }
        Ok(())
    }
}

async fn wanted(gateway: &Service) -> Result<usize> {
    let url = format!("http://{}/scaling", gateway.status_address());
    let answer = e2e::admin::http_client()?.get(url).send().await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    Ok(answer["wanted_workers"].as_u64().unwrap_or_default() as usize)
}

/// The first `wanted` dispatchers run.
async fn scale(cluster: &mut Cluster, running: usize, wanted: usize) -> Result<()> {
    while cluster.dispatchers.len() < wanted {
        cluster.add_dispatcher()?;
    }
    for dispatcher in cluster.dispatchers.iter_mut().take(wanted).skip(running) {
        dispatcher.start()?;
    }
    for dispatcher in cluster.dispatchers.iter_mut().take(running).skip(wanted) {
        dispatcher.stop().await?;
    }
    Ok(())
}
