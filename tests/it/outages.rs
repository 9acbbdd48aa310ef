//! Outages of NATS and Redis: services recover without a restart.

use std::time::Duration;

use anyhow::ensure;
use e2e::{Cluster, Result, SOON, eventually, wire};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_go_on_while_redis_is_away() -> Result {
    let mut cluster = Cluster::builder().dispatchers(2).start().await?;
    cluster.webhook("/hook").await?;
    cluster.redis.kill();
    for n in 0..5 {
        cluster
            .admin()
            .create_consumer(&format!("away-{n}"))
            .await?;
    }
    cluster.receiver.wait_for("/hook", 5).await?;
    cluster.rest().await?;

    cluster.redis.start().await?;
    for n in 0..5 {
        cluster
            .admin()
            .create_consumer(&format!("back-{n}"))
            .await?;
    }
    cluster.receiver.wait_for("/hook", 10).await?;
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 10);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_wait_for_redis_where_it_is_required() -> Result {
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_REDIS_REQUIRED", "true")
        .start()
        .await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.redis.kill();
    cluster.admin().create_consumer("ada").await?;
    let waits = [("reason", "redis_away")];
    eventually(SOON, "the delivery is given back", async || {
        let count = cluster.dispatchers_metric("hookline_delivery_handbacks_total", &waits);
        ensure!(count.await? > 0.0, "it is not");
        Ok(())
    })
    .await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 0);

    cluster.redis.start().await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_nats_server_comes_back_and_work_goes_on() -> Result {
    let mut cluster = Cluster::double().await?;
    cluster.webhook("/hook").await?;
    cluster.admin().create_consumer("before").await?;
    cluster.receiver.wait_for("/hook", 1).await?;

    cluster.nats.kill();
    eventually(SOON, "the dispatchers are not ready", async || {
        for dispatcher in &cluster.dispatchers {
            ensure!(dispatcher.status_of("/readyz").await? == 503);
        }
        Ok(())
    })
    .await?;
    cluster.nats.start().await?;
    cluster.ready().await?;
    for n in 0..2 {
        let username = json!({ "username": format!("after-{n}") });
        let admin = cluster.gateways[n].admin();
        eventually(SOON, "the gateway works again", async || {
            let answer = admin.post("/consumers", &username).await?;
            // A write with an unknown outcome may have succeeded.
            ensure!([201, 409].contains(&answer.status), "{answer:?}");
            Ok(())
        })
        .await?;
    }
    cluster.receiver.wait_for("/hook", 3).await?;
    let data = json!({ "entity": { "username": "published" } });
    cluster.publish("crud", "consumers", &data).await?;
    cluster.receiver.wait_for("/hook", 4).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_consumer_is_created_again() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster
        .nats
        .delete_consumer(wire::EVENTS, wire::DISPATCHERS)
        .await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_without_progress_is_unhealthy() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    let dispatcher = &cluster.dispatchers[0];
    assert_eq!(dispatcher.status_of("/healthz").await?, 200);
    let pause = async |seconds| {
        let time = Duration::from_secs(seconds);
        let paused = cluster
            .nats
            .pause_consumer(wire::EVENTS, wire::DISPATCHERS, time);
        paused.await
    };
    pause(600).await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    eventually(2 * SOON, "it notices", async || {
        let status = dispatcher.status_of("/healthz").await?;
        ensure!(status == 503, "it answers {status}");
        ensure!(dispatcher.metric("hookline_stalled", &[]).await? == 1.0);
        Ok(())
    })
    .await?;
    pause(0).await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    eventually(SOON, "it is healthy again", async || {
        ensure!(dispatcher.status_of("/healthz").await? == 200);
        Ok(())
    })
    .await?;
    cluster.finish().await
}
