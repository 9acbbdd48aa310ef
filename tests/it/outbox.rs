//! The outbox: events on their way from the bucket to the event stream.

use anyhow::ensure;
use e2e::{Cluster, Result, SOON, eventually};
use futures::future;
use serde_json::json;

const CREATES: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outbox_is_emptied_once_its_events_are_stored() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    // Concurrently, so that dispatchers may settle them in another order than they were stored in.
    let creates = (0..CREATES).map(async |n| {
        let username = format!("consumer-{n}");
        cluster.admin().create_consumer(&username).await
    });
    future::try_join_all(creates).await?;
    cluster.receiver.wait_for("/hook", CREATES).await?;
    outbox_is_purged(&cluster).await?;

    // An entry stays until a dispatcher has seen its event.
    cluster.dispatchers[0].stop().await?;
    cluster.admin().create_consumer("last").await?;
    assert!(cluster.nats.outbox_entries().await? > 0);
    cluster.dispatchers[0].start()?;
    cluster.receiver.wait_for("/hook", CREATES + 1).await?;
    outbox_is_purged(&cluster).await?;
    assert_eq!(cluster.receiver.events("/hook").len(), CREATES + 1);
    cluster.finish().await
}

async fn outbox_is_purged(cluster: &Cluster) -> Result {
    eventually(SOON, "the outbox is purged", async || {
        let entries = cluster.nats.outbox_entries().await?;
        ensure!(entries == 0, "{entries} entries");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_not_skipped_for_an_event_that_is_published_after_it() -> Result {
    let mut cluster = Cluster::builder().gateways(2).start().await?;
    cluster.webhook("/hook").await?;
    // The server sets up the stream's source some time after its start. Events published until then must
    // not count as sourced.
    for round in 0..2 {
        let username = format!("consumer-{round}");
        cluster.admin().create_consumer(&username).await?;
        let data = json!({ "entity": { "username": "published" } });
        cluster.publish("crud", "consumers", &data).await?;
        let events = cluster.receiver.wait_for("/hook", 2 * (round + 1)).await?;
        let is_this = |event: &e2e::Request| event.json["entity"]["username"] == *username;
        assert_eq!(events.iter().filter(|event| is_this(event)).count(), 1);
        cluster.nats.kill();
        cluster.nats.start().await?;
        for gateway in &mut cluster.gateways {
            gateway.ready().await?;
        }
    }
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 4);
    cluster.finish().await
}
