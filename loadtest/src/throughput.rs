//! How many webhooks a second one dispatcher delivers, as a ratio to the bare pipe.
//!
//! Both work off the same number of events that are stored beforehand, and are timed from the first
//! request to the last. They alternate, pair by pair.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use e2e::Cluster;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use crate::limit;
use crate::receiver::Receiver;

/// Publishes that wait for their acknowledgement at the same time.
const PUBLISHES: usize = 256;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Events of each run.
    #[arg(long, default_value_t = 10_000)]
    events: u64,
    /// Pairs of runs.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Requests of the bare pipe at the same time; Hookline's own setting stays as it is.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
}

/// Measures and prints a table.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub async fn run(options: &Options) -> Result<()> {
    println!(
        "{:>5}  {:>14}  {:>14}  {:>6}",
        "pair", "bare pipe /s", "hookline /s", "ratio"
    );
    let mut ratios = Vec::new();
    for pair in 1..=options.pairs {
        let bare = bare_pipe(options).await?;
        let hookline = dispatcher(options).await?;
        println!(
            "{pair:>5}  {bare:>14.0}  {hookline:>14.0}  {:>6.2}",
            hookline / bare
        );
        ratios.push(hookline / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
    Ok(())
}

async fn bare_pipe(options: &Options) -> Result<f64> {
    let cluster = Cluster::builder()
        .gateways(0)
        .dispatchers(0)
        .start()
        .await?;
    let context = cluster.nats.jetstream();
    limit::create_stream(&context).await?;
    publish(&context, limit::SUBJECT, options.events).await?;
    let mut receiver = Receiver::start().await?;
    let pipe = limit::start(&cluster.nats.url(), &receiver.url, options.concurrency).await?;
    let took = receiver.measure(0, options.events).await?;
    drop(pipe);
    cluster.finish_unchecked().await?;
    rate(options.events, took)
}

async fn dispatcher(options: &Options) -> Result<f64> {
    let mut cluster = Cluster::builder().dispatchers(0).start().await?;
    let mut receiver = Receiver::start().await?;
    let hook = json!({"source": "crud", "event": "consumers", "handler": "webhook",
        "config": {"url": receiver.url, "secret": "measured with both signatures"}});
    cluster.admin().create_hook(&hook).await?;
    publish(
        &cluster.nats.jetstream(),
        "hookline.events.default.crud.consumers",
        options.events,
    )
    .await?;
    cluster.add_dispatcher()?.start()?;
    // The events of the hook's own creation match no hook; its ping is one request.
    let took = receiver.measure(0, options.events + 1).await?;
    cluster.finish_unchecked().await?;
    rate(options.events, took)
}

fn rate(events: u64, took: Duration) -> Result<f64> {
    ensure!(!took.is_zero(), "the run took no time");
    Ok(events as f64 / took.as_secs_f64())
}

/// Stores events of about 200 bytes.
async fn publish(context: &jetstream::Context, subject: &str, events: u64) -> Result<()> {
    futures::stream::iter(0..events)
        .map(|number| {
            let event = json!({"operation": "create", "schema": "consumers", "entity": {
                "id": format!("00000000-0000-4000-8000-{number:012}"), "created_at": 1_627_581_878,
                "type": 0, "username": format!("user-{number}"), "custom_id": "0123456789"}});
            publish_one(context, subject, event.to_string())
        })
        .buffer_unordered(PUBLISHES)
        .try_collect::<()>()
        .await
        .context("the events cannot be stored")
}

async fn publish_one(context: &jetstream::Context, subject: &str, body: String) -> Result<()> {
    context
        .publish(subject.to_owned(), body.into())
        .await?
        .await?;
    Ok(())
}
