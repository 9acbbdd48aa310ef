//! Dispatchers share events, deliveries and Redis calls.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use e2e::{Cluster, Result, SOON};
use serde_json::json;

const HOOKS: usize = 10;
const EVENTS: usize = 1_000;
const BACKLOG: usize = 300;
/// More hooks than a single dispatcher serves an event for.
const WIDE: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_dispatchers_deliver_every_event_to_every_hook_once() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let paths: Vec<String> = (0..HOOKS).map(|n| format!("/hook/{n}")).collect();
    for path in &paths {
        cluster.webhook(path).await?;
    }
    for path in &paths {
        cluster.receiver.wait_for_ping(path).await?;
    }

    let client = cluster.nats.client();
    for n in 0..EVENTS {
        let subject = e2e::wire::event("crud", "consumers");
        let body = json!({ "n": n }).to_string();
        client.publish(subject, body.into()).await?;
    }
    client.flush().await?;

    let total = HOOKS * EVENTS;
    cluster.receiver.wait_for_total(total, 3 * SOON).await?;
    for path in &paths {
        cluster.control(path).await?;
    }

    let events = cluster.receiver.all_events();
    assert_eq!(events.len(), total);
    let mut markers: HashMap<&str, HashSet<u64>> = HashMap::new();
    for event in &events {
        let marker = event.json["n"].as_u64().expect("each event has a marker");
        assert!(
            markers.entry(&event.path).or_default().insert(marker),
            "{} got event {marker} twice",
            event.path
        );
        assert_eq!(event.answered, Some(200));
    }
    assert_eq!(markers.len(), HOOKS);
    let ids: HashSet<&str> = events.iter().map(e2e::Request::webhook_id).collect();
    assert_eq!(ids.len(), total, "each delivery has an id of its own");

    let shares = deliveries(&cluster, "delivered").await?;
    let fifth = total as f64 / 5.0;
    assert!(shares.iter().all(|share| *share >= fifth), "{shares:?}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_of_one_pull_share_redis_calls() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.dispatchers[0].stop().await?;
    for n in 0..BACKLOG {
        let subject = e2e::wire::event("crud", "consumers");
        let body = json!({ "n": n }).to_string();
        // Some have ids.
        if n % 10 == 0 {
            let id = format!("given-{n}");
            cluster.nats.publish_with_id(subject, &id, body).await?;
        } else {
            cluster.nats.publish(subject, body).await?;
        }
    }
    let before = script_calls(&cluster).await?;
    cluster.dispatchers[0].start()?;
    cluster.receiver.wait_for("/hook", BACKLOG).await?;
    cluster.rest().await?;
    let calls = script_calls(&cluster).await? - before;
    // Without batches there would be two per delivery: to claim and to finish.
    assert!(calls < BACKLOG / 2, "{calls} calls");
    cluster.control("/hook").await?;
    let events = cluster.receiver.events("/hook");
    let ids: HashSet<&str> = events.iter().map(e2e::Request::webhook_id).collect();
    assert_eq!((events.len(), ids.len()), (BACKLOG, BACKLOG));
    cluster.finish().await
}

async fn script_calls(cluster: &Cluster) -> Result<usize> {
    let statistics = cluster.redis.ask("INFO commandstats").await?;
    let (_, calls) = statistics
        .split_once("cmdstat_evalsha:calls=")
        .context("no script was called")?;
    let (calls, _) = calls.split_once(',').context("a number")?;
    Ok(calls.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_matches_many_hooks_is_spread_over_all_dispatchers() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let paths: Vec<String> = (0..WIDE).map(|n| format!("/wide/{n}")).collect();
    for path in &paths {
        let url = cluster.receiver.url(path);
        cluster.admin().webhook(&url).await?;
    }
    cluster.rest().await?;
    let pings = deliveries(&cluster, "delivered").await?;
    assert_eq!(pings.iter().sum::<f64>() as usize, WIDE);
    let wide = e2e::wire::event("crud", "consumers");
    let big = json!({ "n": 1, "filler": "x".repeat(900_000) });
    cluster
        .nats
        .publish(wide.clone(), json!({"n": 0}).to_string())
        .await?;
    cluster.receiver.wait_for_total(WIDE, SOON).await?;
    cluster.rest().await?;
    let spread = cluster.dispatchers_metric("hookline_deliveries_spread_total", &[]);
    assert_eq!(spread.await? as usize, WIDE);
    let after = deliveries(&cluster, "delivered").await?;
    let shares: Vec<_> = after.iter().zip(&pings).map(|(a, b)| a - b).collect();
    assert!(
        shares.iter().all(|share| *share >= WIDE as f64 / 5.0),
        "{shares:?}"
    );

    // A large event is not copied for each hook.
    cluster.nats.publish(wide, big.to_string()).await?;
    cluster.receiver.wait_for_total(2 * WIDE, SOON).await?;
    cluster.rest().await?;
    let spread = cluster.dispatchers_metric("hookline_deliveries_spread_total", &[]);
    assert_eq!(spread.await? as usize, WIDE);
    for path in &paths {
        let events = cluster.receiver.events(path);
        let heard: Vec<_> = events.iter().map(|e| e.json["n"].as_u64()).collect();
        assert_eq!(heard, [Some(0), Some(1)], "{path}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_in_a_cluster_of_nats_servers_is_worked_off() -> Result {
    let builder = Cluster::builder().nats_servers(3).dispatchers(2);
    let mut cluster = builder.start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.stop().await?;
    }
    for n in 0..EVENTS {
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.start()?;
    }
    cluster.receiver.wait_for_total(EVENTS, 3 * SOON).await?;
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.event_count(), EVENTS);
    cluster.finish().await
}

/// Each dispatcher's count of an outcome.
async fn deliveries(cluster: &Cluster, outcome: &str) -> Result<Vec<f64>> {
    let labels = [("handler", "webhook"), ("outcome", outcome)];
    let mut counts = Vec::new();
    for dispatcher in &cluster.dispatchers {
        let count = dispatcher.metric("hookline_deliveries_total", &labels);
        counts.push(count.await?);
    }
    Ok(counts)
}
