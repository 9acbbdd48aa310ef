//! Looks for growth of memory, files and storage at half speed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::Cluster;
use hookline_shared::subject;

use crate::plot::{self, Axis};
use crate::question::Question;
use crate::receiver::Receiver;
use crate::report::{Goal, Measure, Section, median};
use crate::rig;

const MIB: f64 = (1 << 20) as f64;
/// Samples per run.
const SAMPLES: u32 = 120;
/// How often due events are published.
const TICK: Duration = Duration::from_millis(5);
/// Name and unit of each sampled value.
const WATCHED: [(&str, &str); 4] = [
    ("resident memory of the dispatcher", "MiB"),
    ("open files of the dispatcher", ""),
    ("events in JetStream", "MiB"),
    ("Redis", "MiB"),
];

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Duration of the run, in seconds.
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// Stored events to find full speed with.
    #[arg(long, default_value_t = 20_000)]
    pub trial: u64,
}

impl Question for Options {
    const NAME: &'static str = "soak";

    fn full() -> Self {
        Self {
            seconds: 600,
            trial: 20_000,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let mut cluster = rig::cluster().await?;
    let mut receiver = Receiver::start().await?;
    let hook = rig::hook("webhook", rig::webhook(&receiver.url));
    cluster.admin().create_hook(&hook).await?;
    let context = cluster.nats.jetstream();
    let Options { seconds, trial } = *options;
    rig::store(&context, rig::SUBJECT, trial).await?;
    cluster.add_dispatcher()?.start()?;
    let full = rig::rate(trial, receiver.measure(trial + 1).await?)?;
    let rate = full / 2.0;
    println!("  {rate:.0} events per second for {seconds} seconds");

    let client = async_nats::connect(cluster.nats.url()).await?;
    let (began, mut sent, mut looked) = (Instant::now(), 0, Instant::now());
    let mut samples: [Vec<(f64, f64)>; WATCHED.len()] = Default::default();
    let mut tick = tokio::time::interval(TICK);
    let time = Duration::from_secs(seconds);
    while began.elapsed() < time {
        tick.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        for number in sent..due {
            client
                .publish(rig::SUBJECT, rig::event(number).into())
                .await?;
        }
        sent = due;
        if looked.elapsed() >= time / SAMPLES {
            looked = Instant::now();
            let at = began.elapsed().as_secs_f64();
            for (samples, value) in samples.iter_mut().zip(sample(&cluster).await?) {
                samples.push((at, value));
            }
            let behind = trial + 1 + sent - receiver.count();
            println!(
                "  {at:>4.0} s  {:>9} delivered, {behind} outstanding",
                receiver.count()
            );
        }
    }
    client.flush().await?;
    receiver.measure(trial + 1 + sent).await?;
    cluster.finish_unchecked().await?;
    let mut section = Section {
        title: format!("Soak: {seconds} s at half speed"),
        about: format!(
            "{rate:.0} events per second, {sent} in total; the last third of the time against the second."
        ),
        ..Section::default()
    };
    for ((name, unit), samples) in WATCHED.into_iter().zip(samples) {
        ensure!(samples.len() >= 6, "the run is too short to see growth");
        let third = samples.len() / 3;
        let mean = |part: &[(f64, f64)]| median(part.iter().map(|(_, value)| *value).collect());
        let (before, after) = (
            mean(&samples[third..2 * third]),
            mean(&samples[2 * third..]),
        );
        let measure = Measure::stated(name, after, unit).against(before);
        // A few more buffers are not growth.
        section
            .measures
            .push(measure.goal(Goal::AtMostOr(1.1, 8.0)));
        let series = [(name.to_owned(), samples)];
        let axes = (Axis::even("seconds"), Axis::even(unit));
        section
            .plots
            .push(plot::lines(name, axes.0, axes.1, &series));
    }
    Ok(section)
}

async fn sample(cluster: &Cluster) -> Result<[f64; WATCHED.len()]> {
    let memory = rig::metric(cluster, "process_resident_memory_bytes").await?;
    let files = rig::metric(cluster, "process_open_fds").await?;
    let stream = cluster.nats.jetstream();
    let stream = stream.get_stream(subject::EVENTS_STREAM).await?;
    let events = stream.cached_info().state.bytes as f64;
    let info = cluster.redis.ask("INFO memory").await?;
    let redis = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let redis: f64 = redis.unwrap_or("nan").trim().parse()?;
    Ok([memory / MIB, files, events / MIB, redis / MIB])
}
