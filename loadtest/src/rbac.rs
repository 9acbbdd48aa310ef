//! What tokens cost: the Admin API with RBAC on beside the same with it off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use e2e::{Admin, Cluster};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use crate::question::Question;
use crate::report::{Goal, Measure, Section};
use crate::rig;

const PASSWORD: &str = "correct-horse-battery";
const CLIENTS: usize = 16;
/// Consumers that are read.
const KNOWN: u64 = 100;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Writes per run; there are ten times as many reads.
    #[arg(long, default_value_t = 1_000)]
    pub writes: u64,
    /// Pairs of runs.
    #[arg(long, default_value_t = 5)]
    pub pairs: usize,
}

impl Question for Options {
    const NAME: &'static str = "rbac";

    fn full() -> Self {
        Self {
            writes: 5_000,
            pairs: 7,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let builder = Cluster::builder().gateways(2).dispatchers(0);
    let mut cluster = builder.prepare().await?;
    cluster.gateways[1].set("HOOKLINE_RBAC", "on");
    cluster.gateways[1].set("HOOKLINE_PASSWORD", PASSWORD);
    cluster.start().await?;
    let open = cluster.gateways[0].admin().clone();
    let closed = cluster.gateways[1].admin();
    let boss = closed.with_token(PASSWORD);
    // A user with a role of its own, as programs are.
    let ci = boss.post("/rbac/users", &json!({ "name": "ci" })).await?;
    let ci = ci.expect(201)?;
    let given = json!({ "roles": "admin" });
    boss.post("/rbac/users/ci/roles", &given)
        .await?
        .expect(201)?;
    let closed = closed.with_token(ci["user_token"].as_str().unwrap_or_default());
    for number in 0..KNOWN {
        open.create_consumer(&format!("known-{number}")).await?;
    }
    let (mut writes, mut reads, names) = (Vec::new(), Vec::new(), AtomicU64::new(0));
    for pair in 1..=options.pairs {
        let write = async |admin: &Admin| write(admin, options.writes, &names).await;
        let read = async |admin: &Admin| read(admin, options.writes * 10).await;
        writes.push((write(&closed).await?, write(&open).await?));
        reads.push((read(&closed).await?, read(&open).await?));
        let ((on, off), (on_read, off_read)) = (writes[pair - 1], reads[pair - 1]);
        println!(
            "  {pair}/{}  {on:>6.0} of {off:>6.0} writes/s, {on_read:>6.0} of {off_read:>6.0} reads/s",
            options.pairs
        );
    }
    cluster.finish_unchecked().await?;
    let ratio = |name: &str, pairs: &[(f64, f64)]| {
        Measure::of_pairs(name, "/s", pairs).goal(Goal::AtLeast(0.9))
    };
    Ok(Section {
        title: "Tokens: the Admin API with RBAC on, and off".to_owned(),
        about: format!(
            "{CLIENTS} clients that create consumers, then read one by its name; two gateways beside each other."
        ),
        measures: vec![
            ratio("Admin API writes with RBAC / without", &writes),
            ratio("Admin API reads with RBAC / without", &reads),
        ],
        plots: Vec::new(),
    })
}

async fn write(admin: &Admin, count: u64, names: &AtomicU64) -> Result<f64> {
    let began = Instant::now();
    let writes = futures::stream::iter(0..count).map(|_| async move {
        let name = format!("user-{}", names.fetch_add(1, Ordering::Relaxed));
        let consumer = json!({ "username": name });
        admin.post("/consumers", &consumer).await?.expect(201)
    });
    let writes = writes.buffer_unordered(CLIENTS);
    writes.try_for_each(|_| async { Ok(()) }).await?;
    rig::rate(count, began.elapsed())
}

async fn read(admin: &Admin, count: u64) -> Result<f64> {
    let began = Instant::now();
    let reads = futures::stream::iter(0..count).map(|number| async move {
        let path = format!("/consumers/known-{}", number % KNOWN);
        admin.get(&path).await?.expect(200)
    });
    let reads = reads.buffer_unordered(CLIENTS);
    reads.try_for_each(|_| async { Ok(()) }).await?;
    rig::rate(count, began.elapsed())
}
