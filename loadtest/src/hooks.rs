//! What many hooks cost: processor time per event, memory, and the time until a change is live.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::Cluster;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::plot::{self, Axis};
use crate::question::Question;
use crate::receiver::Receiver;
use crate::report::{Goal, Measure, Section, median};
use crate::rig;

/// Concurrent requests that create hooks.
const CREATES: usize = 64;
/// Created hooks between two lines of progress.
const PROGRESS: u64 = 10_000;
const KIB: f64 = 1024.0;
/// Changes whose median time counts.
const CHANGES: usize = 20;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Numbers of hooks, one of which hears the events.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 10_000])]
    pub hooks: Vec<u64>,
    /// Events per run.
    #[arg(long, default_value_t = 20_000)]
    pub events: u64,
    /// Runs per number of hooks; the median counts.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
}

impl Question for Options {
    const NAME: &'static str = "hooks";

    fn full() -> Self {
        Self {
            hooks: vec![1, 100, 10_000, 100_000],
            events: 60_000,
            runs: 5,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let (mut costs, mut memories, mut lives) = (Vec::new(), Vec::new(), Vec::new());
    for hooks in &options.hooks {
        let seen = with(*hooks, options).await?;
        println!(
            "  {hooks:>7} hooks  {:>6.1} µs per event  {:>6.1} MiB  a change is live after {:.1} ms",
            seen.cost,
            seen.memory / KIB / KIB,
            seen.live
        );
        costs.push((*hooks as f64, seen.cost));
        memories.push((*hooks as f64, seen.memory));
        lives.push((*hooks as f64, seen.live));
    }
    let mut measures = Vec::new();
    for (hooks, cost) in &costs[1..] {
        let name = format!("cost per event at {hooks} hooks / at {}", costs[0].0);
        let measure = Measure::stated(name, *cost, "µs").against(costs[0].1);
        measures.push(measure.goal(Goal::AtMost(1.2)));
    }
    let (fewest, most) = (memories[0], memories[memories.len() - 1]);
    let each = (most.1 - fewest.1) / (most.0 - fewest.0) / KIB;
    let name = format!("memory per hook, at {} hooks", most.0);
    measures.push(Measure::stated(name, each, "KiB").goal(Goal::Value(10.0)));
    for (hooks, live) in &lives {
        let name = format!("time until a change is live, at {hooks} hooks");
        measures.push(Measure::stated(name, *live, "ms"));
    }
    let axes = (
        Axis::log("hooks"),
        Axis::even("µs of processor time per event"),
    );
    let series = [("webhook".to_owned(), costs)];
    Ok(Section {
        title: "Hooks: what many hooks cost".to_owned(),
        about: format!(
            "{} stored events for one hook, beside hooks on other events; the dispatcher's processor \
             time, median of {} runs. A change is live when an event published right after the Admin \
             API's answer has arrived at the hook's new URL.",
            options.events, options.runs
        ),
        measures,
        plots: vec![plot::lines("cost per event", axes.0, axes.1, &series)],
    })
}

struct Seen {
    /// Microseconds of processor time per event.
    cost: f64,
    /// Resident bytes.
    memory: f64,
    /// Milliseconds until a change is live.
    live: f64,
}

async fn with(hooks: u64, options: &Options) -> Result<Seen> {
    let mut cluster = rig::cluster().await?;
    let mut receiver = Receiver::start().await?;
    let hook = rig::hook("webhook", rig::webhook(&receiver.url));
    let hook = cluster.admin().create_hook(&hook).await?;
    others(&cluster, hooks - 1, &receiver.url).await?;
    cluster.add_dispatcher()?.start()?;
    cluster.ready().await?;
    // Leave out the pings.
    let mut requests = hooks;
    receiver.measure(requests).await?;
    rig::events_drained(&cluster).await?;
    let mut costs = Vec::new();
    for _ in 0..options.runs {
        let before = rig::processor_time(&cluster)?;
        rig::store(&cluster.nats.jetstream(), rig::SUBJECT, options.events).await?;
        requests += options.events;
        receiver.measure(requests).await?;
        let after = rig::processor_time(&cluster)?;
        costs.push((after - before) / options.events as f64 * 1e6);
    }
    let memory = rig::metric(&cluster, "process_resident_memory_bytes").await?;
    let live = live(&cluster, &hook).await?;
    cluster.finish_unchecked().await?;
    Ok(Seen {
        cost: median(costs),
        memory,
        live,
    })
}

/// Creates hooks on other events, of the same source and of another.
#[expect(clippy::print_stdout, reason = "progress")]
async fn others(cluster: &Cluster, count: u64, url: &str) -> Result<()> {
    let creates = futures::stream::iter(0..count).map(|number| {
        let hook = json!({
            "source": if number % 2 == 0 { "crud" } else { "balancer" },
            "event": format!("event-{}", number % 1_000), "handler": "webhook",
            "config": {"url": url, "secret": format!("secret {number}"), "headers": {"x-hook": number.to_string()}},
        });
        async move { cluster.admin().create_hook(&hook).await }
    });
    let (mut creates, mut made) = (creates.buffer_unordered(CREATES), 0);
    while let Some(created) = creates.next().await {
        created.context("cannot create the other hooks")?;
        made += 1;
        if made % PROGRESS == 0 {
            println!("    {made} of {count} hooks created");
        }
    }
    Ok(())
}

/// The median time in milliseconds from the answer to a change of the hook's URL until an event
/// published at that moment has arrived at the new URL.
async fn live(cluster: &Cluster, hook: &Value) -> Result<f64> {
    let path = format!("/event-hooks/{}", e2e::admin::id(hook)?);
    let context = cluster.nats.jetstream();
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let receiver = Receiver::start().await?;
        let change = json!({"config": {"url": receiver.url}});
        cluster.admin().patch(&path, &change).await?.expect(200)?;
        let changed = Instant::now();
        let event = rig::event(number as u64);
        context.publish(rig::SUBJECT, event.into()).await?.await?;
        while receiver.count() == 0 {
            ensure!(
                changed.elapsed() < Duration::from_secs(10),
                "a change is not live after 10 s"
            );
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        times.push(changed.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(median(times))
}
