//! Dispatchers share the work.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use e2e::{Cluster, Result};
use serde_json::json;

const HOOKS: usize = 10;
const EVENTS: usize = 1_000;

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
    let deadline = Duration::from_secs(90);
    cluster.receiver.wait_for_total(total, deadline).await?;
    cluster.rest().await?;

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

    let mut shares = Vec::new();
    for dispatcher in &cluster.dispatchers {
        let labels = [("handler", "webhook"), ("outcome", "delivered")];
        let share = dispatcher.metric("hookline_deliveries_total", &labels);
        shares.push(share.await?);
    }
    let fifth = 2_000.0;
    assert!(shares.iter().all(|share| *share >= fifth), "{shares:?}");
    cluster.finish().await
}
