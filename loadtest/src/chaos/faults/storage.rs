//! Storage that runs out, and comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use e2e::{Cluster, eventually};

use crate::chaos::endpoint::Mood;
use crate::chaos::row::{Evidence, Row};
use crate::chaos::stage::{Size, Stage};

/// What the server has.
const STORE: u64 = 64 << 20;
/// What takes it up.
const FILL: &str = "FILL";
/// How long there is no room: longer than what waits takes to fall due.
const FULL: Duration = Duration::from_secs(12);

pub(super) async fn full(name: &str, size: Size) -> Result<Row> {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .nats_store(STORE)
        .gateway_env("HOOKLINE_EVENTS_MAX_BYTES", "16777216")
        .dispatcher_env("HOOKLINE_EVENTS_MAX_BYTES", "16777216")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "6s,6s,6s,6s,6s,6s,6s,6s,6s,6s")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "0,1,5s")
        .start()
        .await?;
    let stage = Stage::set(cluster, &[Mood::Well, Mood::Failing], size).await?;
    let mut evidence = Evidence {
        allows_repeats: true,
        ..Evidence::default()
    };
    let load = stage.load_of(size.rate.min(200)).await?;
    tokio::time::sleep(size.calm).await;

    let context = stage.cluster.nats.jetstream();
    let began = std::time::Instant::now();
    fill(&context).await?;
    evidence.mark(stage.began, "full");
    let refusal = refusal(&context).await;
    let stored = stage.cluster.nats.count("HOOKLINE_DELIVERIES").await?;
    tokio::time::sleep(FULL).await;
    context.delete_stream(FILL).await?;
    evidence.mark(stage.began, "room");
    stage.endpoints[1].set(Mood::Well);
    evidence.require(refusal.is_some(), || {
        "publishers were not refused".to_owned()
    });
    evidence.require(stored > 0, || "nothing waited".to_owned());
    evidence.observed =
        refusal.map(|error| format!("{stored} deliveries waited; publishers were told: {error}"));
    // What could not be settled is attempted again.
    let now = std::time::Instant::now();
    evidence.repeats.push((
        began - Duration::from_secs(10),
        now + Duration::from_secs(60),
    ));

    tokio::time::sleep(size.calm).await;
    let offered = load.stop().await?;
    stage.settle(&[0, 1]).await;
    let swept = stage.metric("hookline_swept_total", &[]).await;
    if let Some(observed) = &mut evidence.observed {
        observed.push_str(&format!("; {swept} were swept"));
    }
    let endpoints: Vec<_> = stage.endpoints.iter().collect();
    let row = Row::reconcile(name, &endpoints, offered, evidence, stage.began);
    stage.cluster.finish().await?;
    Ok(row)
}

/// Takes up all storage that there is.
async fn fill(context: &jetstream::Context) -> Result<()> {
    let config = jetstream::stream::Config {
        name: FILL.to_owned(),
        subjects: vec!["fill".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await?;
    let mut bytes = vec![0; 1 << 20];
    for _ in 0..(2 * STORE) >> 10 {
        let sent = context.publish("fill", bytes.clone().into()).await?;
        if sent.await.is_err() {
            if bytes.len() <= 1 << 10 {
                return Ok(());
            }
            // Down to the last kilobyte.
            bytes.truncate(bytes.len() / 2);
        }
    }
    anyhow::bail!("the storage does not fill")
}

/// What a publisher is told.
async fn refusal(context: &jetstream::Context) -> Option<String> {
    let told = eventually(
        Duration::from_secs(5),
        "publishers are refused",
        async || {
            let subject = "hookline.events.default.nobody.hears";
            let sent = context
                .publish(subject, vec![b' '; 64 << 10].into())
                .await?;
            let refused = sent.await.err();
            let refused = refused.context("it was taken")?;
            ensure!(!refused.to_string().is_empty());
            Ok(refused.to_string())
        },
    );
    told.await.ok()
}
