//! Durable publishing, where NATS syncs each event: one by one, in groups, and through the Admin API.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use async_nats::jetstream;
use e2e::{Cluster, wire};
use futures::{StreamExt as _, TryStreamExt as _};
use hookline_shared::batch::{Message, Writer};
use serde_json::json;

use crate::plot::{self, Axis};
use crate::question::Question;
use crate::report::{Goal, Measure, Section};
use crate::rig;

/// Concurrent writers that share group commits.
const WRITERS: usize = 2_000;
/// Concurrent publishers that wait for each acknowledgement.
const PUBLISHERS: usize = 256;
const CLIENTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events per run.
    #[arg(long, default_value_t = 10_000)]
    pub events: u64,
    /// Pairs of runs.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
    /// Admin API writes per run, at most 100 per client.
    #[arg(long, default_value_t = 500)]
    pub writes: u64,
}

impl Question for Options {
    const NAME: &'static str = "publish";

    fn full() -> Self {
        Self {
            events: 50_000,
            pairs: 5,
            writes: 5_000,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let builder = Cluster::builder().dispatchers(0);
    let builder = builder.gateway_env("HOOKLINE_EVENT_BATCHES", "true");
    let cluster = builder.start().await?;
    let context = cluster.nats.jetstream();
    let stored = cluster.nats.stream(wire::EVENTS).await?;
    let mut pairs = Vec::new();
    for pair in 1..=options.pairs {
        let single = one_by_one(&context, options.events).await?;
        stored.purge().await?;
        let group = in_groups(&context, options.events).await?;
        stored.purge().await?;
        println!(
            "  {pair}/{}  {group:>7.0} /s in groups, {single:>7.0} /s one by one",
            options.pairs
        );
        pairs.push((group, single));
    }
    let name = "durable publishing, in groups / one event per sync";
    let mut measures = vec![Measure::of_pairs(name, "/s", &pairs).goal(Goal::AtLeast(5.0))];
    let (mut points, names) = (Vec::new(), AtomicU64::new(0));
    for clients in CLIENTS {
        let rate = admin(&cluster, clients, options.writes, &names).await?;
        println!("  Admin API, {clients:>2} clients  {rate:>6.0} writes/s");
        let name = format!("Admin API writes, {clients} clients");
        measures.push(Measure::stated(name, rate, "/s"));
        points.push((clients as f64, rate));
    }
    cluster.finish_unchecked().await?;
    let axes = (Axis::log("clients"), Axis::even("writes per second"));
    let series = [("POST /consumers".to_owned(), points)];
    Ok(Section {
        title: "Publishing: events on disk before they are acknowledged".to_owned(),
        about: format!(
            "{PUBLISHERS} publishers of single events, {WRITERS} writers that share commits; events of \
             200 bytes. An Admin API write is a consumer, its unique keys and its event."
        ),
        measures,
        plots: vec![plot::lines("Admin API writes", axes.0, axes.1, &series)],
    })
}

fn subject(number: u64) -> String {
    wire::event("bench", &format!("number-{}", number % 1_000))
}

async fn one_by_one(context: &jetstream::Context, events: u64) -> Result<f64> {
    let began = Instant::now();
    let publishes = futures::stream::iter(0..events).map(|number| async move {
        let stored = context.publish(subject(number), rig::event(number).into());
        stored.await?.await?;
        anyhow::Ok(())
    });
    publishes
        .buffer_unordered(PUBLISHERS)
        .try_collect::<()>()
        .await?;
    rig::rate(events, began.elapsed())
}

async fn in_groups(context: &jetstream::Context, events: u64) -> Result<f64> {
    let writer = Writer::spawn(context.client(), None);
    let began = Instant::now();
    let writes = futures::stream::iter(0..events).map(|number| {
        let message = Message::new(subject(number), rig::event(number));
        writer.commit(vec![message.repeatable()])
    });
    writes
        .buffer_unordered(WRITERS)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    rig::rate(events, began.elapsed())
}

async fn admin(cluster: &Cluster, clients: usize, writes: u64, names: &AtomicU64) -> Result<f64> {
    let writes = writes.min(100 * clients as u64);
    let began = Instant::now();
    let posts = futures::stream::iter(0..writes).map(|_| async move {
        let name = format!("user-{}", names.fetch_add(1, Ordering::Relaxed));
        let consumer = json!({"username": name});
        let answer = cluster.admin().post("/consumers", &consumer).await?;
        answer.expect(201)
    });
    posts
        .buffer_unordered(clients)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    rig::rate(writes, began.elapsed())
}
