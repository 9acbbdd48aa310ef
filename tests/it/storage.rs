//! Full streams and scarce storage: nothing is lost, and work resumes once there is space.

use anyhow::ensure;
use e2e::{Cluster, Leftovers, Result, SOON, Store, eventually, wire};
use serde_json::json;

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_parked_while_storage_is_scarce() -> Result {
    let cluster = Cluster::builder()
        .nats_store(Store::Account(64 * MIB))
        .gateway_env("HOOKLINE_EVENTS_MAX_BYTES", "8388608")
        .dispatcher_env("HOOKLINE_EVENTS_MAX_BYTES", "8388608")
        .start()
        .await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    let jetstream = cluster.nats.jetstream();
    cluster.nats.fill(54).await?;
    let scarce = async |wanted: f64| {
        eventually(SOON, "the dispatcher sees the storage", async || {
            let scarce = cluster.dispatchers_metric("hookline_storage_scarce", &[]);
            ensure!(scarce.await? == wanted, "it does not");
            Ok(())
        })
        .await
    };
    scarce(1.0).await?;
    cluster.receiver.answer("/hook", &[500]);
    cluster.publish("crud", "consumers", &json!({})).await?;
    // It is redelivered, but never stored a second time.
    cluster.receiver.wait_for("/hook", 2).await?;
    assert_eq!(cluster.nats.count(wire::DELIVERIES).await?, 0);
    assert_eq!(cluster.nats.open_events().await?, 1);

    jetstream.delete_stream("FILL").await?;
    scarce(0.0).await?;
    eventually(SOON, "it is parked", async || {
        ensure!(cluster.nats.count(wire::DELIVERIES).await? == 1);
        Ok(())
    })
    .await?;
    cluster.receiver.answer("/hook", &[200]);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_events_are_purged_past_an_open_one() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    for event in ["slow", "fast"] {
        let url = cluster.receiver.url(&format!("/{event}"));
        // The held attempt must not run into its timeout on a slow machine.
        let hook = json!({"source": "room", "event": event, "handler": "webhook",
            "config": {"url": url}, "delivery": {"timeout": 60}});
        cluster.admin().create_hook(&hook).await?;
        cluster.receiver.wait_for_ping(&format!("/{event}")).await?;
    }
    cluster.rest().await?;
    cluster.nats.set_max_bytes(wire::EVENTS, 2 << 20).await?;
    let held = cluster.receiver.hold("/slow", 1);
    cluster.publish("room", "slow", &json!({})).await?;
    let body = json!({"filler": "x".repeat(4_000)});
    for _ in 0..300 {
        cluster.publish("room", "fast", &body).await?;
    }
    cluster.receiver.wait_for("/fast", 300).await?;
    eventually(SOON, "they leave the stream", async || {
        let stored = cluster.nats.count(wire::EVENTS).await?;
        ensure!(stored == 1, "{stored} are stored");
        Ok(())
    })
    .await?;
    assert_eq!(cluster.receiver.in_flight(), 1);
    held.release(200);
    cluster.receiver.wait_for("/slow", 1).await?;
    eventually(SOON, "it leaves the stream as well", async || {
        ensure!(cluster.nats.count(wire::EVENTS).await? == 0);
        Ok(())
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_stays_parked_while_the_dead_letters_are_full() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.nats.set_max_bytes(wire::DEAD, 1).await?;
    cluster.receiver.answer("/hook", &[500]);
    cluster.publish("crud", "consumers", &json!({})).await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    let parked = Leftovers { dead: 0, parked: 1 };
    eventually(SOON, "the dispatcher says that it is full", async || {
        let full = cluster.dispatchers_metric("hookline_dead_letters_full", &[]);
        ensure!(full.await? == 1.0, "it does not");
        Ok(())
    })
    .await?;
    cluster.rest_leaving(parked).await?;
    let path = format!("/event-hooks/{}/deliveries", e2e::admin::id(&hook)?);
    let list = cluster.admin().get(&path).await?.expect(200)?;
    assert_eq!(list["counts"], json!({"waiting": 1, "dead": 0}));
    assert_eq!(
        list["data"][0]["reason"],
        "no room for dead letters: the receiver answered 500"
    );
    cluster.finish_leaving(parked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_events_crowd_out_neither_events_nor_dead_deliveries() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "0,1,5s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.nats.set_max_bytes(wire::DEAD, 4 << 20).await?;
    let garbage = "x".repeat(4_000);
    for _ in 0..1_500 {
        let subject = wire::event("crud", "consumers");
        cluster.nats.publish(subject, &garbage).await?;
    }
    eventually(SOON, "all of it is settled", async || {
        let open = cluster.nats.open_events().await?;
        ensure!(open == 0, "{open} are open");
        Ok(())
    })
    .await?;
    let dead = cluster.nats.count(wire::DEAD).await?;
    assert!((1..1_100).contains(&dead), "{dead}");

    cluster.receiver.answer("/hook", &[500]);
    let body = json!({"filler": "y".repeat(60_000)});
    for _ in 0..3 {
        cluster.publish("crud", "consumers", &body).await?;
    }
    let path = format!("/event-hooks/{}/deliveries", e2e::admin::id(&hook)?);
    eventually(SOON, "dead deliveries take its place", async || {
        let list = cluster.admin().get(&path).await?.expect(200)?;
        let counts = &list["counts"];
        ensure!(*counts == json!({"waiting": 0, "dead": 3}), "{counts}");
        Ok(())
    })
    .await?;
    let dead = cluster.nats.count(wire::DEAD).await?;
    cluster.finish_leaving(Leftovers { dead, parked: 0 }).await
}
