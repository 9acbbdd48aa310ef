//! Latency at a given rate.
//!
//! The load is open: latency counts from the moment an event was due, not from when it was published, so
//! a stall also counts for the events that it delays.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{Cluster, eventually};
use hdrhistogram::Histogram;

use crate::plot::{self, Axis};
use crate::question::Question;
use crate::receiver::{Receiver, Stamp};
use crate::report::{Goal, Measure, Section};
use crate::{limit, rig};

/// How often due events are published.
const TICK: Duration = Duration::from_millis(1);
/// Warm-up of connections, which does not count.
const WARM: Duration = Duration::from_secs(2);
/// Time allowed for the last arrivals.
const LAST: Duration = Duration::from_secs(30);
const PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events per second.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// Seconds per run.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Pairs of runs.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
}

impl Question for Options {
    const NAME: &'static str = "latency";

    fn full() -> Self {
        Self {
            rate: 1_000,
            seconds: 60,
            pairs: 5,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let (mut all, mut bare) = (Vec::new(), Vec::new());
    let mut pairs = Vec::new();
    for pair in 1..=options.pairs {
        let without = pipe(options).await?;
        let with = hookline(options).await?;
        let p99 = |stamps: &[Stamp]| anyhow::Ok(at(&histogram(stamps)?, 99.0));
        pairs.push((p99(&with)?, p99(&without)?));
        println!(
            "  {pair}/{}  p99 {:.1} ms, bare pipe {:.1} ms",
            options.pairs,
            pairs[pair - 1].0,
            pairs[pair - 1].1
        );
        all.extend(with);
        bare.extend(without);
    }
    let (with, without) = (histogram(&all)?, histogram(&bare)?);
    let name = format!("p99 latency at {} events/s / bare pipe", options.rate);
    let goal = Goal::AtMostOr(1.5, 5.0);
    let mut measures = vec![Measure::of_pairs(name, "ms", &pairs).goal(goal)];
    for percent in PERCENTILES {
        let name = format!("p{percent} of all runs");
        let measure = Measure::stated(name, at(&with, percent), "ms");
        measures.push(measure.against(at(&without, percent)));
    }
    let curve = |histogram: &Histogram<u64>| {
        let points = (0..=400).map(|step| {
            let nines = f64::from(step) / 100.0;
            (nines, at(histogram, 100.0 - 100.0 / 10_f64.powf(nines)))
        });
        points.collect::<Vec<_>>()
    };
    let series = [
        ("Hookline".to_owned(), curve(&with)),
        ("bare pipe".to_owned(), curve(&without)),
    ];
    let (nines, ms) = (Axis::even("nines: 2 is p99, 3 is p99.9"), Axis::log("ms"));
    Ok(Section {
        title: "Latency: from when an event is due to its arrival".to_owned(),
        about: format!(
            "Open load of {} events per second, {} s per run; NATS syncs each event to disk.",
            options.rate, options.seconds
        ),
        measures,
        plots: vec![plot::lines("latency by percentile", nines, ms, &series)],
    })
}

async fn pipe(options: &Options) -> Result<Vec<Stamp>> {
    let builder = Cluster::builder().gateways(0).dispatchers(0);
    let cluster = builder.start().await?;
    limit::create_stream(&cluster.nats.jetstream()).await?;
    let epoch = Instant::now();
    let receiver = Receiver::stamping(epoch).await?;
    let pipe = limit::start(&cluster.nats.url(), &receiver.url, 256).await?;
    let stamps = load(&cluster, limit::SUBJECT, options, epoch, &receiver).await?;
    drop(pipe);
    cluster.finish_unchecked().await?;
    Ok(stamps)
}

async fn hookline(options: &Options) -> Result<Vec<Stamp>> {
    let cluster = Cluster::builder().start().await?;
    let epoch = Instant::now();
    let receiver = Receiver::stamping(epoch).await?;
    let hook = rig::hook("webhook", rig::webhook(&receiver.url));
    cluster.admin().create_hook(&hook).await?;
    let stamps = load(&cluster, rig::SUBJECT, options, epoch, &receiver).await?;
    cluster.finish_unchecked().await?;
    Ok(stamps)
}

/// Publishes at the rate, and returns all arrivals but those of the warm-up.
async fn load(
    cluster: &Cluster,
    subject: &str,
    options: &Options,
    epoch: Instant,
    receiver: &Receiver,
) -> Result<Vec<Stamp>> {
    let client = async_nats::connect(cluster.nats.url()).await?;
    let start = epoch.elapsed();
    let end = start + WARM + Duration::from_secs(options.seconds);
    let interval = Duration::from_secs(1).div_f64(options.rate as f64);
    let (mut due, mut sent) = (start, 0);
    let mut tick = tokio::time::interval(TICK);
    while due < end {
        tick.tick().await;
        while due <= epoch.elapsed() && due < end {
            let body = format!(
                r#"{{"at":{},"operation":"create","entity":{{"id":"{sent}","username":"user-{sent}"}}}}"#,
                due.as_micros()
            );
            client.publish(subject.to_owned(), body.into()).await?;
            due += interval;
            sent += 1;
        }
    }
    client.flush().await?;
    let arrived = eventually(LAST, "all events arrive", async || {
        let count = receiver.stamps().len();
        ensure!(count >= sent, "{count} of {sent} arrived");
        Ok(())
    });
    arrived.await?;
    let warm = (start + WARM).as_micros() as u64;
    let mut stamps = receiver.stamps();
    stamps.retain(|stamp| stamp.due >= warm);
    Ok(stamps)
}

fn histogram(stamps: &[Stamp]) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new(3)?;
    for stamp in stamps {
        histogram.record(stamp.late)?;
    }
    Ok(histogram)
}

/// A percentile in milliseconds.
fn at(histogram: &Histogram<u64>, percent: f64) -> f64 {
    histogram.value_at_percentile(percent) as f64 / 1_000.0
}
