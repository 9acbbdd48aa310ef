//! Failed attempts: retries, `Retry-After`, 410 and the end of the schedule.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use e2e::nats::reason;
use e2e::{Cluster, Leftovers, Request, Result, SOON, eventually};
use serde_json::json;

/// The times between the requests.
fn gaps(events: &[Request]) -> Vec<Duration> {
    events
        .windows(2)
        .map(|pair| pair[1].at.duration_since(pair[0].at))
        .collect()
}

/// How late a retry may be depends on the machine.
fn assert_not_early(gap: Duration, scheduled: Duration) {
    let earliest = scheduled.mul_f64(0.8);
    assert!(
        gap >= earliest,
        "{gap:?} is less than {scheduled:?} with 20% jitter"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_delivery_is_retried_as_scheduled() -> Result {
    // The default schedule: 1 s, then 5 s.
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    let metric = "hookline_deliveries_total";
    let labels = [("handler", "webhook"), ("outcome", "delivered")];
    let before = cluster.dispatchers_metric(metric, &labels).await?;
    cluster.receiver.answer("/hook", &[500, 500, 200]);

    cluster.admin().create_consumer("Ada").await?;

    let events = cluster.receiver.wait_for("/hook", 3).await?;
    let gaps = gaps(&events);
    assert_not_early(gaps[0], Duration::from_secs(1));
    assert_not_early(gaps[1], Duration::from_secs(5));
    let answers: Vec<_> = events.iter().map(|event| event.answered).collect();
    assert_eq!(answers[..2], [Some(500); 2]);
    for event in &events {
        assert_eq!(event.webhook_id(), events[0].webhook_id());
        assert_eq!(event.body, events[0].body);
    }
    assert!(!events[0].webhook_id().is_empty());

    cluster.rest().await?;
    let delivered = cluster.dispatchers_metric(metric, &labels).await? - before;
    assert_eq!(delivered, 1.0);
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 3);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_due_within_two_seconds_is_not_parked() -> Result {
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.receiver.answer("/hook", &[500, 200, 500, 200]);

    let event = |n: u32| json!({ "n": n });
    cluster.publish("crud", "consumers", &event(1)).await?;

    let events = cluster.receiver.wait_for("/hook", 2).await?;
    assert_not_early(gaps(&events)[0], Duration::from_secs(1));
    assert_eq!(events[1].webhook_id(), events[0].webhook_id());
    cluster.rest().await?;
    assert_eq!(parked_ever(&cluster).await?, 0);

    // A dispatcher that ends meanwhile parks it.
    cluster.publish("crud", "consumers", &event(2)).await?;
    cluster.receiver.wait_for("/hook", 3).await?;
    cluster.dispatchers[0].stop().await?;
    assert!(parked_ever(&cluster).await? > 0);
    cluster.dispatchers[0].start()?;
    cluster.dispatchers[0].ready().await?;

    let events = cluster.receiver.wait_for("/hook", 4).await?;
    assert_eq!(events[3].webhook_id(), events[2].webhook_id());
    cluster.finish().await
}

/// Deliveries parked so far; each counts again when it falls due.
async fn parked_ever(cluster: &Cluster) -> Result<u64> {
    let stream = cluster.nats.stream("HOOKLINE_DELIVERIES").await?;
    Ok(stream.get_info().await?.state.last_sequence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_410_ends_the_delivery_and_pauses_the_hook() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.receiver.answer("/hook", &[410]);

    cluster.admin().create_consumer("Ada").await?;

    let dead = cluster.nats.dead_letters(1).await?;
    let id = e2e::admin::id(&hook)?;
    let subject = &dead[0].subject;
    assert!(
        subject.starts_with(&format!("hookline.dead.{id}.")),
        "{subject}"
    );
    assert!(reason(&dead[0]).contains("410"), "{}", reason(&dead[0]));
    let body: serde_json::Value = serde_json::from_slice(&dead[0].payload)?;
    assert_eq!(body["entity"]["username"], "Ada");
    let path = format!("/event-hooks/{id}");
    eventually(SOON, "the hook is paused", async || {
        let hook = cluster.admin().get(&path).await?.expect(200)?;
        ensure!(hook["delivery"]["paused"] == true, "{hook}");
        let reason = &hook["delivery"]["paused_reason"];
        ensure!(*reason == "the receiver answered 410", "{hook}");
        Ok(())
    })
    .await?;
    let leftovers = Leftovers { dead: 1, parked: 0 };
    cluster.rest_leaving(leftovers).await?;

    cluster.admin().create_consumer("Grace").await?;
    let waiting = Leftovers { dead: 1, parked: 1 };
    cluster.rest_leaving(waiting).await?;

    // Resumed, it no longer has a reason to be paused.
    let go_on = json!({"delivery": {"paused": false}});
    let hook = cluster.admin().patch(&path, &go_on).await?.expect(200)?;
    assert_eq!(hook["delivery"]["paused"], false);
    assert!(hook["delivery"]["paused_reason"].is_null(), "{hook}");
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 1, "one attempt");
    cluster.finish_leaving(waiting).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_followed() -> Result {
    let cluster = Cluster::single().await?;
    let receiver = &cluster.receiver;
    cluster.webhook("/hook").await?;
    receiver.wait_for_ping("/hook").await?;
    receiver.answer("/hook", &[429, 200]);
    receiver.answer_body("/hook", "slow down", ("retry-after", "4"));
    let later = cluster.webhook("/later").await?;
    receiver.wait_for_ping("/later").await?;
    receiver.answer("/later", &[429]);
    receiver.answer_body("/later", "slow down", ("retry-after", "600"));

    let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
    cluster
        .publish("crud", "consumers", &json!({ "n": 1 }))
        .await?;

    let events = receiver.wait_for("/hook", 2).await?;
    let gap = gaps(&events)[0];
    assert!(gap >= Duration::from_millis(3_900), "{gap:?}");
    let parked = Leftovers { dead: 0, parked: 1 };
    cluster.rest_leaving(parked).await?;
    let path = format!("/event-hooks/{}/deliveries", e2e::admin::id(&later)?);
    let list = cluster.admin().get(&path).await?.expect(200)?;
    let one = &list["data"][0];
    let due = one["due_at"].as_f64().unwrap_or_default();
    let stored = one["stored_at"].as_f64().unwrap_or_default();
    assert!(due - before.as_secs_f64() >= 600.0, "{one}");
    assert!(due - stored <= 601.0, "{one}");
    cluster.finish_leaving(parked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_without_retries_left_is_dead_lettered() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s,1s")
        .start()
        .await?;
    cluster.webhook("/broken").await?;
    cluster.receiver.wait_for_ping("/broken").await?;
    cluster.receiver.answer("/broken", &[500]);
    // A redirect is a failure, and is not followed.
    let elsewhere = cluster.receiver.url("/elsewhere");
    cluster.webhook("/moved").await?;
    cluster.receiver.wait_for_ping("/moved").await?;
    cluster.receiver.answer("/moved", &[302]);
    cluster
        .receiver
        .answer_body("/moved", "", ("location", &elsewhere));

    let data = json!({ "n": 1 });
    cluster.publish("crud", "consumers", &data).await?;

    let dead = cluster.nats.dead_letters(1).await?;
    assert_eq!(reason(&dead[0]), "the receiver answered 500");
    let body: serde_json::Value = serde_json::from_slice(&dead[0].payload)?;
    assert_eq!(body, data);
    for path in ["/broken", "/moved"] {
        cluster.control(path).await?;
    }
    assert_eq!(cluster.receiver.events("/broken").len(), 3);
    // Its second attempt follows after a minute.
    assert_eq!(cluster.receiver.events("/moved").len(), 1);
    assert_eq!(cluster.receiver.requests("/elsewhere").len(), 0);
    // A hook on that path does reach it.
    cluster.webhook("/elsewhere").await?;
    cluster.receiver.wait_for_ping("/elsewhere").await?;
    let leftovers = Leftovers { dead: 1, parked: 1 };
    cluster.finish_leaving(leftovers).await
}
