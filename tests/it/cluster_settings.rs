//! What must be equal on all dispatchers: one that differs does not start.

use std::time::Duration;

use anyhow::ensure;
use e2e::redis::RedisServer;
use e2e::{Cluster, Proxy, Result, SOON, Service, eventually, wire};
use serde_json::json;

/// A dispatcher's setting, its value, and what the refusal says.
const DIFFERENT: [(&str, &str, &str); 7] = [
    (
        "HOOKLINE_EGRESS_ALLOW",
        "10.0.0.0/8",
        "HOOKLINE_EGRESS_ALLOW is \"10.0.0.0/8\" here and \"127.0.0.0/8\" in the cluster",
    ),
    (
        "HOOKLINE_RETRY_SCHEDULE",
        "1s,2s",
        "HOOKLINE_RETRY_SCHEDULE is \"1s,2s\" here and \"1s,5s,30s,2m,10m,30m,1h,3h,6h,12h\" in the cluster",
    ),
    (
        "HOOKLINE_ACK_WAIT",
        "9s",
        "HOOKLINE_ACK_WAIT is \"9s\" here and \"8s\" in the cluster",
    ),
    (
        "HOOKLINE_LEASE",
        "5s",
        "HOOKLINE_LEASE is \"5s\" here and \"6s\" in the cluster",
    ),
    (
        "HOOKLINE_DEDUPE_WINDOW",
        "1m",
        "HOOKLINE_DEDUPE_WINDOW is \"1m\" here and \"1h\" in the cluster",
    ),
    (
        "HOOKLINE_MAX_AGE",
        "1s",
        "HOOKLINE_MAX_AGE is \"1s\" here and \"3days\" in the cluster",
    ),
    (
        "HOOKLINE_HOOK_BACKLOG",
        "1",
        "HOOKLINE_HOOK_BACKLOG is \"1\" here",
    ),
];

/// Starts it, and expects that it ends with a message.
async fn refused(dispatcher: &mut Service, message: &str) -> Result {
    dispatcher.start()?;
    let code = dispatcher.process_mut().exit_code(SOON).await?;
    let log = dispatcher.process().log();
    ensure!(code != 0 && log.contains(message), "{message}: {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_with_other_settings_does_not_start_and_harms_no_delivery() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    for (name, value, message) in DIFFERENT {
        let odd = cluster.add_dispatcher()?;
        odd.set(name, value);
        odd.start()?;
        cluster.admin().create_consumer(name).await?;
        let odd = cluster.dispatchers.last_mut().expect("just added");
        let code = odd.process_mut().exit_code(SOON).await?;
        let log = odd.process().log().replace("\\\"", "\"");
        assert!(code != 0 && log.contains(message), "{message}: {log}");
        assert!(log.contains("replace-settings"), "{log}");
    }
    cluster.receiver.wait_for("/hook", DIFFERENT.len()).await?;
    cluster.rest().await?;
    // Another spelling of the same is no difference.
    let same = cluster.add_dispatcher()?;
    same.set("HOOKLINE_EGRESS_ALLOW", "127.0.0.1/8,127.0.0.0/8");
    same.set("HOOKLINE_LEASE", "6000ms");
    same.start()?;
    same.ready().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_dispatchers_that_start_at_once_those_that_differ_from_the_first_end() -> Result {
    let mut cluster = Cluster::builder().dispatchers(6).prepare().await?;
    cluster.nats.start().await?;
    cluster.redis.start().await?;
    for (number, dispatcher) in cluster.dispatchers.iter_mut().enumerate() {
        let lease = ["6s", "5s"][number % 2];
        dispatcher.set("HOOKLINE_LEASE", lease);
        dispatcher.start()?;
    }
    let mut ended = Vec::new();
    for (number, dispatcher) in cluster.dispatchers.iter_mut().enumerate() {
        let settled = eventually(SOON, "it is ready or ends", async || {
            let ready = matches!(dispatcher.status_of("/readyz").await, Ok(200));
            let runs = dispatcher.check_running().is_ok();
            ensure!(ready || !runs);
            Ok(runs)
        });
        if !settled.await? {
            let log = dispatcher.process().log();
            assert!(log.contains("HOOKLINE_LEASE"), "{log}");
            ended.push(number % 2);
        }
    }
    assert!(ended == [0; 3] || ended == [1; 3], "{ended:?} ended");
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_with_another_redis_does_not_start() -> Result {
    let mut cluster = Cluster::single().await?;
    let dir = tempfile::tempdir()?;
    let mut another = RedisServer::new(dir.path())?;
    another.start().await?;
    let odd = cluster.add_dispatcher()?;
    odd.set("HOOKLINE_REDIS_URL", &another.url());
    refused(odd, "is not the one that the other dispatchers use").await?;
    assert!(odd.process().log().contains("HOOKLINE_REDIS_URL"));
    // That of another cluster.
    another.ask("SET hookline:cluster another").await?;
    cluster.dispatchers[0].stop().await?;
    let odd = &mut cluster.dispatchers[1];
    refused(odd, "belongs to another cluster (another, this is ").await?;
    assert!(!odd.process().log().contains("panicked"));
    // Taken over on demand.
    odd.replace_settings().await?;
    odd.start()?;
    odd.ready().await?;
    // Flushed, it is the same to a dispatcher that starts: others see what it writes there.
    another.ask("FLUSHALL").await?;
    let third = cluster.add_dispatcher()?;
    third.set("HOOKLINE_REDIS_URL", &another.url());
    third.start()?;
    third.ready().await?;
    // Whereas the first one is out now.
    refused(&mut cluster.dispatchers[0], "is not the one that the other").await?;
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_redis_that_comes_late_ends_a_dispatcher_that_started_without() -> Result {
    let proxy = Proxy::start().await?;
    let mut cluster = Cluster::builder().prepare().await?;
    cluster.nats.start().await?;
    cluster.redis.start().await?;
    cluster.redis.ask("SET hookline:cluster another").await?;
    proxy.lead_to(cluster.redis.port());
    proxy.cut();
    let dispatcher = &mut cluster.dispatchers[0];
    dispatcher.set(
        "HOOKLINE_REDIS_URL",
        &format!("redis://{}", proxy.address()),
    );
    dispatcher.start()?;
    dispatcher.ready().await?;
    assert!(
        dispatcher
            .process()
            .log()
            .contains("starting without Redis")
    );
    proxy.mend();
    assert_ne!(dispatcher.process_mut().exit_code(SOON).await?, 0);
    let log = dispatcher.process().log();
    assert!(log.contains("belongs to another cluster"), "{log}");
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clusters_settings_are_replaced_by_a_command() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let second = cluster.add_dispatcher()?;
    second.set("HOOKLINE_MAX_AGE", "2d");
    second.set("HOOKLINE_ACK_WAIT", "9s");
    second.replace_settings().await?;
    let stream = cluster.nats.stream(wire::EVENTS).await?;
    let consumer = stream.consumer_info(wire::DISPATCHERS).await?;
    assert_eq!(consumer.config.ack_wait, Duration::from_secs(9));
    let second = cluster.dispatchers.last_mut().expect("just added");
    second.start()?;
    second.ready().await?;
    // The first goes on, and says that it differs.
    cluster.admin().create_consumer("one").await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    eventually(4 * SOON, "the first reports it", async || {
        let log = cluster.dispatchers[0].process().log();
        ensure!(
            log.contains("the cluster's settings were replaced"),
            "{log}"
        );
        Ok(())
    })
    .await?;
    cluster.dispatchers[0].stop().await?;
    refused(&mut cluster.dispatchers[0], "HOOKLINE_MAX_AGE is").await?;
    // What cannot be read is an error too.
    let key = hookline_shared::subject::CLUSTER_KEY;
    cluster
        .nats
        .publish(key, json!({"settings": 5}).to_string())
        .await?;
    cluster.dispatchers[1].stop().await?;
    refused(
        &mut cluster.dispatchers[1],
        "settings in the bucket cannot be read",
    )
    .await?;
    cluster.dispatchers[1].replace_settings().await?;
    cluster.dispatchers[1].start()?;
    cluster.dispatchers[1].ready().await?;
    cluster.finish().await
}
