//! Sick endpoints and hostile inputs beside healthy hooks: how much later these get their events.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::hostile::{Attack, inputs};
use e2e::{Cluster, wire};

use crate::chaos::endpoint::{Endpoint, Mood};
use crate::chaos::ledger::percentile;
use crate::chaos::load::Offered;
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{Kept, Size, Stage};

/// The healthy hooks' p99 may grow by this factor or by [`MORE`], whichever is larger.
const FACTOR: f64 = 1.2;
const MORE: Duration = Duration::from_millis(5);

pub(super) async fn refusing(name: &str, size: Size) -> Result<Row> {
    beside(name, size, 1, &[Mood::Refusing]).await
}

pub(super) async fn silent(name: &str, size: Size) -> Result<Row> {
    beside(name, size, 1, &[Mood::Silent]).await
}

pub(super) async fn slow(name: &str, size: Size) -> Result<Row> {
    beside(name, size, 1, &[Mood::Slow]).await
}

pub(super) async fn many(name: &str, size: Size) -> Result<Row> {
    let sick = [Mood::Refusing, Mood::Silent, Mood::Slow, Mood::Failing];
    let sick: Vec<_> = sick.into_iter().cycle().take(200).collect();
    beside(name, size, 10, &sick).await
}

async fn beside(name: &str, size: Size, healthy: usize, sick: &[Mood]) -> Result<Row> {
    compare(name, size, async |present| {
        run(size, healthy, sick, present).await
    })
    .await
}

/// Every input once, while one healthy hook gets half of the usual load.
pub(super) async fn hostile(name: &str, size: Size) -> Result<Row> {
    compare(name, size, async |present| attacked(size, present).await).await
}

async fn attacked(size: Size, present: bool) -> Result<Run> {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let stage = Stage::set(cluster, &[Mood::Well], size).await?;
    let load = stage.load_of(size.rate / 2).await?;
    let mut evidence = Evidence {
        observed: Some("no attack".to_owned()),
        ..Evidence::default()
    };
    let time = size.calm + size.fault / 2;
    let end = tokio::time::sleep(time);
    let attack = if present {
        let pause = time / inputs().len() as u32;
        Some(Attack::start(&stage.cluster, pause).await?)
    } else {
        None
    };
    end.await;
    let offered = load.stop().await?;
    stage.settle(&[0]).await;
    if let Some(attack) = attack {
        let classes = attack.classes();
        let (count, classes) = (classes.values().sum::<usize>(), classes.len());
        let ended = attack.ends(&stage.cluster).await;
        if let Err(error) = ended {
            evidence.broken.push(format!("{error:#}"));
        }
        evidence.observed = Some(format!("{count} inputs of {classes} classes"));
        evidence.dead = stage.cluster.nats.count(wire::DEAD).await?;
    }
    Run::end(stage, offered, evidence, 1).await
}

/// Compares the medians of the healthy hooks' p99s, without and with what is beside them.
#[expect(clippy::print_stdout, reason = "progress")]
async fn compare(name: &str, size: Size, run: impl AsyncFn(bool) -> Result<Run>) -> Result<Row> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let last = loop {
        if size.pairs > 0 {
            without.push(run(false).await?.p99());
        }
        let last = run(true).await?;
        with.push(last.p99());
        if with.len() >= size.pairs {
            break last;
        }
        let (pair, pairs) = (with.len(), size.pairs);
        let (alone, beside) = (without[pair - 1], with[pair - 1]);
        println!("      pair {pair}/{pairs}: healthy p99 {alone} without, {beside} beside");
    };
    let mut evidence = last.evidence;
    if size.pairs > 0 {
        let (without, with) = (Lateness::median(&without), Lateness::median(&with));
        let allowed = without.arrival.mul_f64(FACTOR).max(without.arrival + MORE);
        let p99 = format!("healthy p99 {without} without, {with} beside");
        evidence.require(with.arrival <= allowed, || p99.clone());
        evidence.compared = Some((without.arrival, with.arrival));
        if let Some(observed) = &mut evidence.observed {
            observed.push_str(&format!("; {p99}"));
        }
    }
    let endpoints: Vec<_> = last.endpoints[..last.healthy].iter().collect();
    Ok(Row::reconcile(
        name,
        &endpoints,
        last.offered,
        evidence,
        last.began,
    ))
}

struct Run {
    endpoints: Vec<Endpoint>,
    offered: Offered,
    evidence: Evidence,
    began: Instant,
    healthy: usize,
}

impl Run {
    async fn end(
        stage: Stage,
        offered: Offered,
        evidence: Evidence,
        healthy: usize,
    ) -> Result<Self> {
        let Stage {
            cluster,
            endpoints,
            began,
            ..
        } = stage;
        cluster.finish_unchecked().await?;
        Ok(Self {
            endpoints,
            offered,
            evidence,
            began,
            healthy,
        })
    }

    /// The healthy hooks' p99.
    fn p99(&self) -> Lateness {
        let healthy = self.endpoints[..self.healthy].iter();
        let entries = healthy.flat_map(|endpoint| endpoint.ledger.entries());
        let (arrivals, storing) = entries
            .map(|entry| (entry.latency(), entry.storing()))
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let p99 = |times: Vec<_>| percentile(times.into_iter().flatten().collect(), 99.0);
        Lateness {
            arrival: p99(arrivals),
            storing: p99(storing),
        }
    }
}

/// From publishing to arrival, and from publishing to NATS's acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Lateness {
    arrival: Duration,
    storing: Duration,
}

impl Lateness {
    fn median(of: &[Self]) -> Self {
        let median = |time: fn(&Self) -> Duration| percentile(of.iter().map(time).collect(), 50.0);
        Self {
            arrival: median(|lateness| lateness.arrival),
            storing: median(|lateness| lateness.storing),
        }
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arrival, storing } = self;
        write!(formatter, "{arrival:.1?} (stored in {storing:.1?})")
    }
}

/// Publishes the same events with and without the sick endpoints: half are theirs, and no hook hears
/// that half if they are absent. Each published event costs a sync, which is not the neighbours'
/// doing and so must be the same in both.
async fn run(size: Size, healthy: usize, sick: &[Mood], present: bool) -> Result<Run> {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let beside = if present { sick } else { &[] };
    let moods: Vec<_> = std::iter::repeat_n(Mood::Well, healthy)
        .chain(beside.iter().copied())
        .collect();
    let stage = Stage::set(cluster, &moods, size).await?;
    let load = stage.halves(healthy, sick.len()).await?;
    tokio::time::sleep(size.calm + size.fault / 2).await;
    let offered = load.stop().await?;
    stage.settle(&(0..healthy).collect::<Vec<_>>()).await;
    let mut evidence = Evidence {
        observed: Some("no sick endpoints".to_owned()),
        ..Evidence::default()
    };
    if present {
        reconcile_sick(&stage, healthy, &mut evidence).await?;
    }
    Run::end(stage, offered, evidence, healthy).await
}

/// Requires all deliveries of the sick endpoints to be parked or dead.
async fn reconcile_sick(stage: &Stage, healthy: usize, evidence: &mut Evidence) -> Result<()> {
    let Kept { parked, dead } = match stage.kept(healthy).await {
        Ok(kept) => kept,
        Err(error) => {
            evidence.broken.push(format!("{error:#}"));
            return Ok(());
        }
    };
    evidence.dead = dead as u64;
    let kept = parked + dead;
    let parkings = async |labels: &[_]| {
        let metric = "hookline_deliveries_parked_total";
        stage.metric(metric, labels).await
    };
    let rewritten = parkings(&[]).await - parkings(&[("reason", "retry")]).await;
    evidence.require(rewritten <= 3.0 * kept as f64, || {
        format!("{rewritten} deferrals for {kept} deliveries")
    });
    evidence.observed = Some(format!(
        "{parked} parked, {dead} dead, {rewritten} deferrals"
    ));
    Ok(())
}
