//! The delivery log in the Admin API.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Leftovers, Result, SOON, eventually, wire};
use serde_json::{Value, json};

/// All attempts of a hook, over pages of `size`.
async fn all(cluster: &Cluster, hook: &str, size: usize) -> Result<Vec<Value>> {
    let mut path = format!("/event-hooks/{hook}/attempts?size={size}");
    let mut attempts = Vec::new();
    loop {
        let page = cluster.admin().get(&path).await?.expect(200)?;
        let data = page["data"].as_array().context("no list")?;
        ensure!(data.len() <= size, "{} are more than {size}", data.len());
        attempts.extend(data.iter().cloned());
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => return Ok(attempts),
        }
    }
}

/// Waits until there are exactly `count`.
async fn wait_for(cluster: &Cluster, hook: &str, count: usize) -> Result<Vec<Value>> {
    let mut attempts = Vec::new();
    eventually(SOON, "the attempts are logged", async || {
        attempts = all(cluster, hook, 7).await?;
        ensure!(attempts.len() == count, "{} of {count}", attempts.len());
        Ok(())
    })
    .await?;
    Ok(attempts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_is_logged_with_its_result() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "300ms,300ms")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    let id = e2e::admin::id(&hook)?;
    wait_for(&cluster, id, 1).await?;
    cluster.receiver.answer("/hook", &[500, 503, 200]);
    cluster.admin().create_consumer("Ada").await?;
    cluster.receiver.wait_for("/hook", 3).await?;

    let attempts = wait_for(&cluster, id, 4).await?;
    let seen = |field: &str| attempts.iter().map(|one| one[field].clone()).collect();
    let statuses: Vec<Value> = seen("status");
    assert_eq!(statuses, [json!(200), json!(503), json!(500), json!(200)]);
    let numbers: Vec<Value> = seen("attempt");
    assert_eq!(numbers, [json!(3), json!(2), json!(1), json!(1)]);
    let errors: Vec<Value> = seen("error");
    assert_eq!(errors[0], Value::Null);
    assert_eq!(errors[1], "the receiver answered 503");
    let events = cluster.receiver.events("/hook");
    for attempt in &attempts[..3] {
        assert_eq!(attempt["id"], events[0].webhook_id());
        let node = attempt["node"].as_str().unwrap_or_default();
        assert!(node.starts_with("dispatcher-"), "{node}");
        assert!(attempt["duration_ms"].as_f64() > Some(0.0), "{attempt}");
        assert!(attempt["attempted_at"].as_f64() > Some(1.7e9), "{attempt}");
    }
    cluster.rest().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_listed_in_pages_newest_first() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let hooks = [
        cluster.webhook("/one").await?,
        cluster.webhook("/two").await?,
    ];
    for n in 0..40 {
        let username = format!("consumer-{n}");
        cluster.admin().create_consumer(&username).await?;
    }
    for hook in &hooks {
        let attempts = wait_for(&cluster, e2e::admin::id(hook)?, 41).await?;
        let ids: HashSet<_> = attempts.iter().map(|one| one["id"].as_str()).collect();
        assert_eq!(ids.len(), 41, "each once");
    }
    let id = e2e::admin::id(&hooks[0])?;
    let mut attempts = all(&cluster, id, 100).await?;
    for n in 40..43 {
        let username = format!("consumer-{n}");
        cluster.admin().create_consumer(&username).await?;
        let events = cluster.receiver.wait_for("/one", n + 1).await?;
        let longer = wait_for(&cluster, id, n + 2).await?;
        assert_eq!(longer[0]["id"], events[n].webhook_id(), "newest first");
        assert_eq!(longer[1..], attempts, "the others keep their places");
        attempts = longer;
    }

    let path = format!("/event-hooks/{id}/attempts");
    for wrong in ["size=0", "offset=x", "offset=1"] {
        let path = format!("{path}?{wrong}");
        cluster.admin().get(&path).await?.expect(400)?;
    }
    cluster.rest().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_failures_are_logged_if_so_configured() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_ATTEMPTS", "failures")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.receiver.answer("/hook", &[200, 500]);
    for name in ["well", "ill"] {
        cluster.admin().create_consumer(name).await?;
    }
    cluster
        .rest_leaving(Leftovers { dead: 1, parked: 0 })
        .await?;
    let id = e2e::admin::id(&hook)?;
    let attempts = wait_for(&cluster, id, 2).await?;
    let dead = format!("/event-hooks/{id}/dead?all=true");
    cluster.admin().delete(&dead).await?.expect(204)?;
    assert!(
        attempts.iter().all(|one| one["status"] == 500),
        "{attempts:?}"
    );
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_go_on_while_attempts_cannot_be_logged() -> Result {
    let cluster = Cluster::single().await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster
        .nats
        .jetstream()
        .delete_stream(wire::ATTEMPTS)
        .await?;
    for n in 0..20 {
        let username = format!("consumer-{n}");
        cluster.admin().create_consumer(&username).await?;
    }
    cluster.receiver.wait_for("/hook", 20).await?;
    let metric = "hookline_attempt_records_dropped_total";
    eventually(SOON, "dropped records are counted", async || {
        let dropped = cluster.dispatchers_metric(metric, &[]).await?;
        ensure!(dropped >= 20.0, "{dropped}");
        Ok(())
    })
    .await?;
    let path = format!("/event-hooks/{}/attempts", e2e::admin::id(&hook)?);
    cluster.admin().get(&path).await?.expect(503)?;
    cluster.rest().await?;
    cluster.finish().await
}
