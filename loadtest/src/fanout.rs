//! Fan-out: deliveries per second of events with many hooks, against as many events with one hook.

use anyhow::Result;

use crate::plot::{self, Axis};
use crate::question::Question;
use crate::receiver::Receiver;
use crate::report::{Goal, Measure, Section};
use crate::rig;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Numbers of hooks that hear each event.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000])]
    pub hooks: Vec<u64>,
    /// Deliveries per run.
    #[arg(long, default_value_t = 20_000)]
    pub deliveries: u64,
    /// Pairs of runs.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
}

impl Question for Options {
    const NAME: &'static str = "fanout";

    fn full() -> Self {
        Self {
            hooks: vec![10, 100, 1_000],
            deliveries: 60_000,
            pairs: 5,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

/// Events with more hooks than this are spread over all dispatchers (their `MANY_HOOKS`).
const SPREAD_OVER: u64 = 64;

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let (mut measures, mut points) = (Vec::new(), Vec::new());
    for hooks in &options.hooks {
        let mut pairs = Vec::new();
        for pair in 1..=options.pairs {
            let one = deliveries(1, options.deliveries).await?;
            let many = deliveries(*hooks, options.deliveries).await?;
            println!(
                "  {hooks:>5} hooks  {pair}/{}  {many:>8.0} /s of {one:>8.0} /s  {:.2}",
                options.pairs,
                many / one
            );
            pairs.push((many, one));
        }
        let (how, least) = if *hooks > SPREAD_OVER {
            ("spread over all dispatchers", 0.4)
        } else {
            ("on one dispatcher", 0.8)
        };
        let name = format!("fan-out to {hooks} hooks, {how} / one hook");
        let measure = Measure::of_pairs(name, "/s", &pairs).goal(Goal::AtLeast(least));
        points.push((*hooks as f64, measure.value));
        measures.push(measure);
    }
    let axes = (Axis::log("hooks"), Axis::even("deliveries per second"));
    let series = [("webhook".to_owned(), points)];
    Ok(Section {
        title: "Fan-out: one event for many hooks".to_owned(),
        about: format!(
            "{} deliveries per run, one dispatcher, one receiver for all hooks.",
            options.deliveries
        ),
        measures,
        plots: vec![plot::lines(
            "deliveries per second",
            axes.0,
            axes.1,
            &series,
        )],
    })
}

async fn deliveries(hooks: u64, deliveries: u64) -> Result<f64> {
    let mut cluster = rig::cluster().await?;
    let mut receiver = Receiver::start().await?;
    for _ in 0..hooks {
        let hook = rig::hook("webhook", rig::webhook(&receiver.url));
        cluster.admin().create_hook(&hook).await?;
    }
    let events = deliveries / hooks;
    rig::store(&cluster.nats.jetstream(), rig::SUBJECT, events).await?;
    cluster.add_dispatcher()?.start()?;
    // Each hook sends a ping.
    let took = receiver.measure(events * hooks + hooks).await?;
    cluster.finish_unchecked().await?;
    rig::rate(events * hooks, took)
}
