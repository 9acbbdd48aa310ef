//! Graceful shutdown of a dispatcher under load.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::ensure;
use e2e::service::InFlight;
use e2e::{Cluster, Result, SOON, eventually, wait, wire};
use serde_json::json;

/// Kinds of entity: each hook gets a fifth of the events.
const KINDS: [&str; 5] = ["consumers", "services", "routes", "admins", "workspaces"];
/// Five events every ten milliseconds: 500 a second.
const PERIOD: Duration = Duration::from_millis(10);
const EVENTS: u64 = 2_500;
const IN_FLIGHT: usize = 100;

/// Two dispatchers, the second with a short shutdown timeout, and a slow hook on each kind of entity.
/// Leases outlast the scenario, so that whatever a dispatcher does not finish it must give back.
async fn start() -> Result<Cluster> {
    let mut cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_LEASE", "10m")
        .dispatcher_env("HOOKLINE_ACK_WAIT", "11m")
        .prepare()
        .await?;
    cluster.dispatchers[1].set("HOOKLINE_SHUTDOWN_TIMEOUT", "1s");
    cluster.start().await?;
    for kind in KINDS {
        let path = format!("/{kind}");
        let config = json!({ "url": cluster.receiver.url(&path) });
        let hook = e2e::admin::hook("crud", kind, "webhook", config);
        cluster.admin().create_hook(&hook).await?;
        cluster.receiver.wait_for_ping(&path).await?;
        // 500 a second times 0.4 s: 200 in flight.
        cluster.receiver.delay(&path, Duration::from_millis(400));
    }
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_ends_under_load_without_loss_or_repeat() -> Result {
    let mut cluster = start().await?;
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
        leaver.drain().await
    };
    let (published, left) = tokio::join!(publish, stop);
    published?;
    assert_eq!(left?, InFlight::Finished);

    let total = usize::try_from(EVENTS)?;
    cluster.receiver.wait_for_total(total, SOON).await?;
    cluster.rest().await?;
    let events = cluster.receiver.all_events();
    let markers: HashSet<u64> = events.iter().filter_map(|e| e.json["n"].as_u64()).collect();
    assert_eq!(markers.len(), total, "nothing is lost");
    assert_eq!(events.len(), total, "nothing came twice");
    assert!(events.iter().all(|event| event.answered == Some(200)));

    // The second dispatcher cannot finish in time.
    let before = cluster.receiver.events("/consumers").len();
    let hold = cluster.receiver.hold("/consumers", 1);
    let data = json!({ "n": EVENTS });
    cluster.publish("crud", "consumers", &data).await?;
    cluster.receiver.wait_for("/consumers", before + 1).await?;
    assert_eq!(cluster.dispatchers[1].drain().await?, InFlight::GivenBack);
    hold.release(200);
    cluster.dispatchers[0].start()?;
    let events = cluster.receiver.wait_for("/consumers", before + 2).await?;
    let [first, again] = [before, before + 1].map(|n| events[n].webhook_id());
    assert_eq!(first, again);
    cluster.control("/consumers").await?;
    assert_eq!(cluster.receiver.event_count(), total + 2);
    cluster.finish().await
}
