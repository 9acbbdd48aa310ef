//! A dispatcher that is told to end.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{Cluster, Result, SOON, eventually, wait, wire};
use serde_json::json;

/// Kinds of entity, so that each hook gets a fifth of the events.
const KINDS: [&str; 5] = ["consumers", "services", "routes", "admins", "workspaces"];
/// Five events every ten milliseconds: 500 a second.
const PERIOD: Duration = Duration::from_millis(10);
const EVENTS: u64 = 2_500;
const IN_FLIGHT: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_ends_under_load_without_loss_or_repeat() -> Result {
    let mut cluster = Cluster::builder().dispatchers(2).start().await?;
    for kind in KINDS {
        let path = format!("/{kind}");
        let config = json!({ "url": cluster.receiver.url(&path) });
        let hook = e2e::admin::hook("crud", kind, "webhook", config);
        cluster.admin().create_hook(&hook).await?;
        cluster.receiver.wait_for_ping(&path).await?;
        // 500 a second times 0.4 s: 200 in flight.
        cluster.receiver.delay(&path, Duration::from_millis(400));
    }

    let client = cluster.nats.client().clone();
    let mut published = 0;
    let publish = wait::paced(PERIOD, async || {
        for kind in KINDS {
            let body = json!({ "n": published }).to_string();
            let subject = wire::event("crud", kind);
            client.publish(subject, body.into()).await?;
            published += 1;
        }
        client.flush().await?;
        Ok(published < EVENTS)
    });
    let receiver = &cluster.receiver;
    let leaver = &mut cluster.dispatchers[0];
    let stop = async {
        eventually(SOON, "the load is on", async || {
            let (flying, seen) = (receiver.in_flight(), receiver.event_count());
            ensure!(flying >= IN_FLIGHT && seen > 500, "{flying} in flight");
            Ok(())
        })
        .await?;
        let asked = Instant::now();
        leaver.stop().await?;
        Ok(asked.elapsed())
    };
    let (published, stopped) = tokio::join!(publish, stop);
    published?;
    let stopped: Result<Duration> = stopped;
    let took = stopped?;
    assert!(took < Duration::from_secs(15), "it took {took:?} to end");

    let total = usize::try_from(EVENTS)?;
    let deadline = Duration::from_secs(60);
    cluster.receiver.wait_for_total(total, deadline).await?;
    cluster.rest().await?;
    let events = cluster.receiver.all_events();
    let markers: HashSet<u64> = events.iter().filter_map(|e| e.json["n"].as_u64()).collect();
    assert_eq!(markers.len(), total, "nothing is lost");
    assert_eq!(events.len(), total, "nothing came twice");
    assert!(events.iter().all(|event| event.answered == Some(200)));
    cluster.finish().await
}
