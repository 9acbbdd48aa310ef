//! What many entities cost: reads among them, memory, and the time until a gateway that starts knows them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::{Admin, Cluster, Store};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use crate::question::Question;
use crate::report::{Goal, Measure, Section};

/// Concurrent requests that create consumers.
const CREATES: usize = 64;
/// Concurrent readers.
const READERS: usize = 4;
/// How many consumers have one of the rare tags, and how many of these there are.
const RARE: u64 = 1_000;
const RARES: u64 = 20;
const MIB: f64 = 1024.0 * 1024.0;
/// Milliseconds that a read may take, for all but one of a hundred.
const GOAL: f64 = 10.0;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Consumers.
    #[arg(long, default_value_t = 20_000)]
    pub consumers: u64,
    /// Reads of each kind.
    #[arg(long, default_value_t = 2_000)]
    pub reads: u64,
}

impl Question for Options {
    const NAME: &'static str = "entities";

    fn full() -> Self {
        Self {
            consumers: 100_000,
            reads: 5_000,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let builder = Cluster::builder()
        .dispatchers(0)
        .nats_store(Store::Unsynced);
    let mut cluster = builder.start().await?;
    let count = options.consumers;
    let before = memory(&cluster).await?;
    let began = Instant::now();
    create(cluster.admin(), count).await?;
    println!(
        "  {count} consumers after {:.0} s",
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    cluster.gateways[0].stop().await?;
    let stopped = began.elapsed();
    cluster.gateways[0].start()?;
    cluster.gateways[0].ready().await?;
    let start = began.elapsed() - stopped;
    let each = (memory(&cluster).await? - before) / count as f64 / 1024.0;
    let admin = cluster.admin();
    let mut measures = Vec::new();
    let somewhere = |n: u64| n.wrapping_mul(7_919) % count;
    let page = admin.get("/consumers?size=1000").await?.expect(200)?;
    let offset = page["offset"].as_str().context("another page")?.to_owned();
    for (name, path) in [
        (
            "get by name",
            (|n, _| format!("/consumers/user-{n}")) as fn(u64, &str) -> String,
        ),
        ("list by custom_id", |n, _| {
            format!("/consumers?custom_id=id-{n}")
        }),
        ("list of 100", |_, offset| {
            format!("/consumers?offset={offset}")
        }),
        ("list by a rare tag", |n, _| {
            format!("/consumers?tags=rare-{}", n % RARES)
        }),
        ("list by two tags", |n, _| {
            format!("/consumers?tags=rare-{},usual", n % RARES)
        }),
    ] {
        let path = |n| path(somewhere(n), &offset);
        let p99 = read(admin, options.reads, path).await?;
        println!("  {name}: p99 {p99:.2} ms");
        let name = format!("{name}, p99 at {count} consumers");
        measures.push(Measure::stated(name, p99, "ms").goal(Goal::Value(GOAL)));
    }
    measures.push(Measure::stated("memory per consumer", each, "KiB"));
    let name = format!("start of a gateway with {count} consumers");
    measures.push(Measure::stated(name, start.as_secs_f64(), "s"));
    cluster.finish_unchecked().await?;
    Ok(Section {
        title: "Many entities: reads of the Admin API".to_owned(),
        about: format!("{READERS} clients read among consumers with names, custom ids and tags."),
        measures,
        plots: Vec::new(),
    })
}

async fn create(admin: &Admin, count: u64) -> Result<()> {
    let creates = futures::stream::iter(0..count).map(|n| async move {
        let mut tags = vec!["usual".to_owned()];
        let step = (count / RARE).max(1);
        if n % step == 0 {
            tags.push(format!("rare-{}", n / step % RARES));
        }
        let consumer = json!({
            "username": format!("user-{n}"), "custom_id": format!("id-{n}"), "tags": tags,
        });
        admin.post("/consumers", &consumer).await?.expect(201)
    });
    let creates = creates.buffer_unordered(CREATES);
    creates.try_for_each(|_| async { Ok(()) }).await
}

/// The p99 in milliseconds.
async fn read(admin: &Admin, count: u64, path: impl Fn(u64) -> String) -> Result<f64> {
    let path = &path;
    let reads = futures::stream::iter(0..count).map(|n| async move {
        let began = Instant::now();
        admin.get(&path(n)).await?.expect(200)?;
        anyhow::Ok(began.elapsed())
    });
    let mut took: Vec<Duration> = reads.buffer_unordered(READERS).try_collect().await?;
    took.sort_unstable();
    let p99 = took.get(took.len() * 99 / 100).context("some reads")?;
    Ok(p99.as_secs_f64() * 1e3)
}

async fn memory(cluster: &Cluster) -> Result<f64> {
    let gateway = &cluster.gateways[0];
    let bytes = gateway.metric("process_resident_memory_bytes", &[]).await?;
    Ok(bytes.max(MIB))
}
