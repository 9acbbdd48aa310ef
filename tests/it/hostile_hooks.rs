//! Hooks, events and requests that try to stop or slow gateways and dispatchers.

use std::time::Duration;

use anyhow::ensure;
use e2e::hostile::{Attack, FORGED};
use e2e::{Cluster, Leftovers, Result, admin, eventually};
use hookline_shared::subject;
use serde_json::json;

/// A generous time for all hostile deliveries to end.
const LONG: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_inputs_stop_nobody_and_each_gets_a_clear_answer() -> Result {
    // Lines of a text log can be forged, if anything can.
    let builder = Cluster::builder().dispatchers(2);
    let builder = builder.dispatcher_env("HOOKLINE_LOG_FORMAT", "text");
    let mut cluster = builder.start().await?;
    cluster.webhook("/healthy").await?;
    cluster.receiver.wait_for_ping("/healthy").await?;
    let attack = Attack::start(&cluster, Duration::ZERO).await?;
    let classes = attack.classes();
    let tried: usize = classes.values().sum();
    ensure!(tried >= 150, "{tried}: {classes:?}");
    attack.ends(&cluster).await?;
    let before = cluster.receiver.events("/healthy").len();
    cluster.admin().create_consumer("after").await?;
    cluster.receiver.wait_for("/healthy", before + 1).await?;
    for dispatcher in &cluster.dispatchers {
        let log = dispatcher.process().log();
        ensure!(log.contains("FORGED"), "the texts are logged");
        let forged = log.lines().find(|line| line.starts_with(FORGED));
        ensure!(forged.is_none(), "{forged:?}");
        for control in ['\r', '\u{2028}', '\u{85}', '\x1b', '\u{202e}'] {
            ensure!(!log.contains(control), "{control:?} is logged as it is");
        }
        let stuck = dispatcher
            .metric("hookline_stuck_threads_total", &[])
            .await?;
        ensure!(stuck < 0.5, "{stuck} threads are stuck");
        eventually(LONG, "memory returns", async || {
            let memory = dispatcher.metric("process_resident_memory_bytes", &[]);
            let memory = memory.await?;
            ensure!(memory < 300e6, "{memory} bytes of memory");
            Ok(())
        })
        .await?;
    }
    let services = cluster.gateways.iter_mut().chain(&mut cluster.dispatchers);
    for service in services {
        service.check_running()?;
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_hook_that_cannot_be_prepared_stops_no_start_and_its_deliveries_wait() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/healthy").await?;
    cluster.receiver.wait_for_ping("/healthy").await?;
    // As an earlier version accepted it.
    let config = json!({ "url": cluster.receiver.url("/broken"), "method": "POST", "body": "{{ entity.username }}" });
    let mut hook = cluster
        .admin()
        .hook_consumers("webhook-custom", config)
        .await?;
    let path = format!("/event-hooks/{}", admin::id(&hook)?);
    let key = subject::entity_key(
        subject::ALL_WORKSPACES,
        subject::HOOK_KIND,
        admin::id(&hook)?,
    );
    hook["config"]["body"] = json!(format!("{{{{ 1{} }}}}", "+1".repeat(6_435)));
    hook.as_object_mut().expect("an object").remove("hears");
    cluster.nats.publish(&key, hook.to_string()).await?;
    cluster.nats.publish(subject::HOOKS_REVISION, "").await?;
    cluster.dispatchers[0].stop().await?;
    cluster.dispatchers[0].start()?;
    cluster.dispatchers[0].ready().await?;
    cluster.admin().create_consumer("one").await?;
    cluster.receiver.wait_for("/healthy", 1).await?;
    let unusable = cluster
        .dispatchers_metric("hookline_hooks_unusable", &[])
        .await?;
    assert!(
        (unusable - 1.0).abs() < 0.1,
        "{unusable} hooks are reported"
    );
    let parked = [("reason", "unusable")];
    eventually(LONG, "its delivery waits", async || {
        let waits = cluster
            .dispatchers_metric("hookline_deliveries_parked_total", &parked)
            .await?;
        ensure!(waits > 0.5, "{waits} deferrals");
        Ok(())
    })
    .await?;
    let mended = json!({ "config": { "body": "{{ entity.username }}" } });
    cluster.admin().patch(&path, &mended).await?.expect(200)?;
    cluster.receiver.wait_for_total(2, LONG).await?;
    assert_eq!(cluster.receiver.events("/broken")[0].text(), "one");
    cluster.finish_leaving(Leftovers::default()).await
}

/// An event at which each process that attempts it ends, among others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_ends_its_workers_is_buried_and_the_others_are_made_once() -> Result {
    const OTHERS: usize = 400;
    let cluster = Cluster::builder()
        .dispatchers(3)
        .dispatcher_env("HOOKLINE_TEST_ABORT", "poison");
    let mut cluster = cluster.start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    for number in 0..OTHERS {
        if number == OTHERS / 2 {
            cluster
                .publish("crud", "consumers", &json!({ "text": "poison" }))
                .await?;
        }
        cluster
            .publish("crud", "consumers", &json!({ "n": number }))
            .await?;
    }
    let mut ends = 0;
    let end = std::time::Instant::now() + LONG;
    while cluster.nats.count(e2e::wire::DEAD).await? == 0 {
        ensure!(
            std::time::Instant::now() < end,
            "it is not buried after {ends} ends"
        );
        for dispatcher in &mut cluster.dispatchers {
            if dispatcher.check_running().is_err() {
                ends += 1;
                dispatcher.start()?;
            }
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(ends, 4, "deaths");
    cluster.receiver.wait_for_total(OTHERS, LONG).await?;
    let dead = cluster.nats.dead_letters(1).await?;
    assert_eq!(e2e::nats::reason(&dead[0]), "it has stopped its workers");
    // What was in flight in a process that ended may be made again, and nothing else.
    let made = cluster.receiver.events("/hook").len();
    assert!(made < OTHERS + 4 * 256, "{made} of {OTHERS}");
    Ok(())
}
