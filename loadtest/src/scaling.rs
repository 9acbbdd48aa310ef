//! How much faster several dispatchers are than one, with a slow receiver.

use anyhow::Result;

use crate::plot::{self, Axis};
use crate::question::Question;
use crate::receiver::{Behaviour, Receiver};
use crate::report::{Goal, Measure, Section, median};
use crate::rig;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Numbers of dispatchers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    pub dispatchers: Vec<u64>,
    /// The receiver's delay, in milliseconds.
    #[arg(long, default_value_t = 50)]
    pub delay: u64,
    /// Events per run and dispatcher.
    #[arg(long, default_value_t = 8_000)]
    pub events: u64,
    /// Runs per number of dispatchers; the median counts.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
}

impl Question for Options {
    const NAME: &'static str = "scaling";

    fn full() -> Self {
        Self {
            dispatchers: vec![1, 2, 4, 8],
            delay: 50,
            events: 10_000,
            runs: 3,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let mut points = Vec::new();
    for dispatchers in &options.dispatchers {
        let mut rates = Vec::new();
        for _ in 0..options.runs {
            rates.push(deliveries(*dispatchers, options).await?);
        }
        println!(
            "  {dispatchers} dispatchers  {:>6.0} /s",
            median(rates.clone())
        );
        points.push((*dispatchers as f64, median(rates)));
    }
    let one = points[0].1 / points[0].0;
    let measures = points[1..].iter().map(|(dispatchers, rate)| {
        let name = format!("{dispatchers} dispatchers / {}", points[0].0);
        let measure = Measure::stated(name, *rate, "/s").against(points[0].1);
        if *dispatchers == 4.0 {
            measure.goal(Goal::AtLeast(3.8))
        } else {
            measure
        }
    });
    let ideal = points
        .iter()
        .map(|(dispatchers, _)| (*dispatchers, dispatchers * one));
    let series = [
        ("ideal".to_owned(), ideal.collect()),
        ("webhook".to_owned(), points.clone()),
    ];
    let axes = (
        Axis::even("dispatchers"),
        Axis::even("deliveries per second"),
    );
    Ok(Section {
        title: format!(
            "Scaling: a receiver that responds after {} ms",
            options.delay
        ),
        about: format!(
            "{} stored events per dispatcher, each with 32 concurrent requests.",
            options.events
        ),
        measures: measures.collect(),
        plots: vec![plot::lines(
            "deliveries per second",
            axes.0,
            axes.1,
            &series,
        )],
    })
}

async fn deliveries(dispatchers: u64, options: &Options) -> Result<f64> {
    let mut cluster = rig::cluster().await?;
    let behaviour = Behaviour {
        delay: options.delay,
        ..Behaviour::default()
    };
    let mut receiver = Receiver::listen("127.0.0.1:0", behaviour).await?;
    let hook = rig::hook("webhook", rig::webhook(&receiver.url));
    cluster.admin().create_hook(&hook).await?;
    let events = options.events * dispatchers;
    rig::store(&cluster.nats.jetstream(), rig::SUBJECT, events).await?;
    for _ in 0..dispatchers {
        cluster.add_dispatcher()?.start()?;
    }
    let took = receiver.measure(events + 1).await?;
    cluster.finish_unchecked().await?;
    rig::rate(events, took)
}
