//! Limits of a hook: circuit breaker, rate limit, `snooze`, `on_change`, backlog and age.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{Cluster, Leftovers, Result, SOON, eventually, wait, wire};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};

const OUTCOMES: &str = "hookline_deliveries_total";
const DEFERRALS: &str = "hookline_deliveries_parked_total";
const OPENINGS: &str = "hookline_circuit_openings_total";

/// Creates a `webhook` on `crud`/`consumers` with these further fields, and waits for its ping.
async fn hook(cluster: &Cluster, path: &str, more: &Value) -> Result<Value> {
    let hook = hook_of(cluster, path, more).await?;
    cluster.rest().await?;
    Ok(hook)
}

async fn hook_of(cluster: &Cluster, path: &str, more: &Value) -> Result<Value> {
    let mut hook = json!({"source": "crud", "event": "consumers", "handler": "webhook",
        "config": {"url": cluster.receiver.url(path)}});
    for (name, value) in more.as_object().into_iter().flatten() {
        hook[name] = value.clone();
    }
    let hook = cluster.admin().create_hook(&hook).await?;
    cluster.receiver.wait_for_ping(path).await?;
    Ok(hook)
}

async fn publish(cluster: &Cluster, data: &Value) -> Result {
    cluster.publish("crud", "consumers", data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_receiver_is_left_alone_until_a_probe_succeeds() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s")
        .start()
        .await?;
    let options = json!({"delivery": {"circuit_breaker": {"failures": 3, "open": 5}}});
    hook(&cluster, "/hook", &options).await?;
    cluster.receiver.answer("/hook", &[500]);
    for n in 0..20 {
        publish(&cluster, &json!({ "n": n })).await?;
    }
    let openings = async || cluster.dispatchers_metric(OPENINGS, &[]).await;
    eventually(SOON, "the circuit opens", async || {
        ensure!(openings().await? > 0.0, "it is closed");
        Ok(())
    })
    .await?;
    // Attempts that were in flight when it opened may still arrive.
    cluster
        .rest_leaving(Leftovers {
            dead: 0,
            parked: 20,
        })
        .await?;
    let attempts = cluster.receiver.events("/hook").len();
    let before = openings().await?;
    for n in 20..30 {
        publish(&cluster, &json!({ "n": n })).await?;
    }
    cluster
        .rest_leaving(Leftovers {
            dead: 0,
            parked: 30,
        })
        .await?;
    // Where ten events outlasted the open circuit, each probe failed and opened it again.
    let probes = openings().await? - before;
    let more = cluster.receiver.events("/hook").len() - attempts;
    assert_eq!(more as f64, probes);

    cluster.receiver.answer("/hook", &[200]);
    eventually(5 * SOON, "every event arrives", async || {
        let delivered = cluster.receiver.events("/hook");
        let mut all: Vec<_> = delivered
            .iter()
            .filter(|event| event.answered == Some(200))
            .map(|event| event.json["n"].as_u64())
            .collect();
        all.sort_unstable();
        all.dedup();
        ensure!(all.len() == 30, "{} of 30", all.len());
        Ok(())
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_holds_over_all_dispatchers_and_loses_nothing() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    hook(&cluster, "/hook", &json!({"delivery": {"rate_limit": 10}})).await?;
    let started = Instant::now();
    for n in 0..50 {
        publish(&cluster, &json!({ "n": n })).await?;
    }
    let events = cluster.receiver.wait_for("/hook", 50).await?;
    // A burst of ten, then ten a second, which the server makes due twice a second.
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(3_500), "{took:?}");
    for window in events.windows(31) {
        let spread = window[30].at.duration_since(window[0].at);
        assert!(spread >= Duration::from_millis(1_000), "31 in {spread:?}");
    }
    cluster.rest().await?;
    let limited = [("reason", "rate_limit")];
    let deferred = cluster.dispatchers_metric(DEFERRALS, &limited).await?;
    assert!((1.0..=49.0).contains(&deferred), "each once: {deferred}");
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 50);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snooze_is_silent_about_the_same_entity_for_a_while() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    hook(&cluster, "/long", &json!({"snooze": 600})).await?;
    let same = |n: u64| json!({"entity": {"id": "same"}, "n": n});
    for n in 0..10 {
        publish(&cluster, &same(n)).await?;
    }
    publish(&cluster, &json!({"entity": {"id": "other"}})).await?;
    cluster.receiver.wait_for("/long", 2).await?;
    cluster.rest().await?;
    assert_eq!(cluster.receiver.events("/long").len(), 2);
    let snoozed = [("outcome", "snoozed")];
    let count = cluster.dispatchers_metric(OUTCOMES, &snoozed).await?;
    assert_eq!(count, 9.0);

    hook(&cluster, "/short", &json!({"snooze": 1})).await?;
    eventually(SOON, "the silence ends", async || {
        publish(&cluster, &same(10)).await?;
        cluster.rest().await?;
        let events = cluster.receiver.events("/short");
        ensure!(events.len() >= 2, "{} events", events.len());
        Ok(())
    })
    .await?;
    publish(&cluster, &json!({"entity": {"id": "another"}})).await?;
    let events = cluster.receiver.wait_for("/long", 3).await?;
    let heard = events
        .iter()
        .map(|event| event.json["entity"]["id"].clone());
    let mut heard: Vec<_> = heard.collect();
    heard[..2].sort_by_key(Value::to_string);
    assert_eq!(heard, ["other", "same", "another"]);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_change_fires_when_the_entity_differs_from_what_was_seen_last() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    hook(&cluster, "/hook", &json!({"on_change": true})).await?;
    let id = "00000000-0000-4000-8000-000000000001";
    // Each is settled before the next, since order matters. The last one fires, after all that do not.
    let steps = [
        (json!({"id": id, "tags": 1, "updated_at": 1}), true),
        (json!({"id": id, "tags": 1, "updated_at": 2}), false),
        (json!({"id": id, "tags": 2, "updated_at": 2}), true),
        (json!({"id": id, "tags": true, "updated_at": 2}), true),
        (json!({"id": id, "tags": true, "updated_at": 3}), false),
        (json!({"id": id, "tags": 1}), true),
    ];
    let mut expected = Vec::new();
    for (n, (entity, fires)) in steps.iter().enumerate() {
        publish(&cluster, &json!({"entity": entity, "n": n})).await?;
        cluster.rest().await?;
        if *fires {
            expected.push(json!(n));
        }
    }
    let events = cluster.receiver.events("/hook");
    let fired: Vec<_> = events.iter().map(|event| event.json["n"].clone()).collect();
    assert_eq!(fired, expected);
    cluster.finish().await
}

/// Options of a hook, and the word for what they suppress.
fn suppressions() -> [(&'static str, Value, &'static str); 2] {
    [
        ("/snooze", json!({"snooze": 600}), "snoozed"),
        ("/change", json!({"on_change": true}), "unchanged"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_fails_suppresses_nothing_and_others_wait_for_it() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "6s")
        .start()
        .await?;
    for (path, options, _) in suppressions() {
        hook(&cluster, path, &options).await?;
        cluster.receiver.answer(path, &[503, 503, 200]);
    }
    let same = |n: u64| json!({"entity": {"id": "same"}, "n": n});
    publish(&cluster, &same(1)).await?;
    for (path, _, _) in suppressions() {
        cluster.receiver.wait_for(path, 1).await?;
    }
    publish(&cluster, &same(2)).await?;
    let behind = [("reason", "behind")];
    eventually(SOON, "the second waits for the first", async || {
        let waits = cluster.dispatchers_metric(DEFERRALS, &behind).await?;
        ensure!(waits >= 2.0, "{waits} wait");
        Ok(())
    })
    .await?;
    for (path, _, word) in suppressions() {
        let events = cluster.receiver.wait_for(path, 3).await?;
        let order: Vec<_> = events.iter().map(|event| event.json["n"].clone()).collect();
        assert_eq!(order, [1, 1, 2], "{path}");
        let outcome = [("outcome", word)];
        let suppressed = cluster.dispatchers_metric(OUTCOMES, &outcome).await?;
        assert_eq!(suppressed, 0.0, "{word}");
    }
    let leftovers = Leftovers { dead: 2, parked: 0 };
    cluster.rest_leaving(leftovers).await?;
    // The one that was made suppresses from now on.
    publish(&cluster, &same(3)).await?;
    cluster.rest_leaving(leftovers).await?;
    for (path, _, word) in suppressions() {
        let outcome = [("outcome", word)];
        let suppressed = cluster.dispatchers_metric(OUTCOMES, &outcome).await?;
        assert_eq!(suppressed, 1.0, "{word}");
        assert_eq!(cluster.receiver.events(path).len(), 3);
    }
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_delivery_that_is_made_is_suppressed_and_logged() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "6s")
        .start()
        .await?;
    let mut hooks = Vec::new();
    for (path, options, _) in suppressions() {
        hooks.push(hook(&cluster, path, &options).await?);
        cluster.receiver.answer(path, &[503, 200]);
    }
    let same = |n: u64| json!({"entity": {"id": "same"}, "n": n});
    publish(&cluster, &same(1)).await?;
    for (path, _, _) in suppressions() {
        cluster.receiver.wait_for(path, 1).await?;
    }
    publish(&cluster, &same(2)).await?;
    for (path, _, word) in suppressions() {
        let events = cluster.receiver.wait_for(path, 2).await?;
        assert_eq!(events[1].json["n"], 1, "{path}");
        eventually(SOON, "the second is suppressed", async || {
            let outcome = [("outcome", word)];
            let suppressed = cluster.dispatchers_metric(OUTCOMES, &outcome).await?;
            ensure!(suppressed == 1.0, "{suppressed}");
            Ok(())
        })
        .await?;
    }
    for (hook, by) in hooks.iter().zip(["snooze", "on_change"]) {
        let path = format!("/event-hooks/{}/attempts", e2e::admin::id(hook)?);
        eventually(SOON, "it stands in the delivery log", async || {
            let listed = cluster.admin().get(&path).await?.expect(200)?;
            let attempts = listed["data"].as_array().cloned().unwrap_or_default();
            let suppressed = attempts.iter().find(|one| one["suppressed"] == by);
            let one = suppressed.ok_or_else(|| anyhow::anyhow!("{attempts:?}"))?;
            ensure!(one["status"].is_null() && one["error"].is_null(), "{one}");
            Ok(())
        })
        .await?;
    }
    for (path, _, _) in suppressions() {
        assert_eq!(cluster.receiver.events(path).len(), 2);
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_change_hears_a_deletion_and_a_new_creation() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    hook(&cluster, "/hook", &json!({"on_change": true})).await?;
    let entity = json!({"id": "same", "username": "Ada"});
    let steps = [
        ("create", true),
        ("update", false),
        ("delete", true),
        ("create", true),
        ("update", false),
    ];
    let mut expected = Vec::new();
    for (n, (operation, fires)) in steps.iter().enumerate() {
        publish(
            &cluster,
            &json!({"operation": operation, "entity": entity, "n": n}),
        )
        .await?;
        cluster.rest().await?;
        if *fires {
            expected.push(json!(n));
        }
    }
    // Numbers that only their text tells apart.
    for (n, number) in ["123456789012345678901", "123456789012345678902"]
        .iter()
        .enumerate()
    {
        let body = format!(
            r#"{{"entity":{{"id":"long","n":{number}}},"n":{}}}"#,
            10 + n
        );
        cluster
            .nats
            .publish(e2e::wire::event("crud", "consumers"), body)
            .await?;
        cluster.rest().await?;
        expected.push(json!(10 + n));
    }
    let events = cluster.receiver.events("/hook");
    let fired: Vec<_> = events.iter().map(|event| event.json["n"].clone()).collect();
    assert_eq!(fired, expected);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_not_suppressed_by_its_own_mark() -> Result {
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_LEASE", "2s")
        .dispatcher_env("HOOKLINE_ACK_WAIT", "3s")
        .start()
        .await?;
    let marks = json!({"snooze": 600, "on_change": true});
    hook(&cluster, "/hook", &marks).await?;
    let hold = cluster.receiver.hold("/hook", 1);
    publish(&cluster, &json!({"entity": {"id": "same"}})).await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.dispatchers[0].process_mut().kill();
    hold.release(200);
    let second = cluster.add_dispatcher()?;
    second.start()?;
    second.ready().await?;
    let events = cluster.receiver.wait_for("/hook", 2).await?;
    assert_eq!(events[0].webhook_id(), events[1].webhook_id());
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_probe_reopens_the_circuit_although_others_were_refused() -> Result {
    let cluster = Cluster::single().await?;
    let options = json!({"delivery": {"circuit_breaker": {"failures": 1, "open": 1}}});
    let hook = hook(&cluster, "/hook", &options).await?;
    cluster.receiver.answer("/hook", &[500]);
    let openings = async |count: f64| {
        eventually(SOON, "the circuit opens", async || {
            let openings = cluster.dispatchers_metric(OPENINGS, &[]).await?;
            ensure!(openings == count, "{openings} of {count}");
            Ok(())
        })
        .await
    };
    publish(&cluster, &json!({"n": 0})).await?;
    openings(1.0).await?;
    wait::let_pass(Duration::from_millis(1_100)).await;
    let hold = cluster.receiver.hold("/hook", 1);
    for n in 1..=5 {
        publish(&cluster, &json!({ "n": n })).await?;
    }
    let refused = [("reason", "circuit_open")];
    eventually(SOON, "all but the probe are refused", async || {
        let refused = cluster.dispatchers_metric(DEFERRALS, &refused).await?;
        ensure!(refused >= 4.0, "{refused} refused");
        Ok(())
    })
    .await?;
    hold.release(500);
    openings(2.0).await?;
    let parked = Leftovers { dead: 0, parked: 6 };
    cluster.rest_leaving(parked).await?;
    // Without a circuit breaker the next event goes out.
    let path = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    let off = json!({"delivery": {"circuit_breaker": {"failures": 0}}});
    cluster.admin().patch(&path, &off).await?.expect(200)?;
    cluster.control("/hook").await?;
    assert_eq!(
        cluster.receiver.events("/hook").len(),
        2,
        "the first, and the probe"
    );
    cluster.finish_leaving(parked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_deferred_by_an_open_circuit_fall_due_evenly() -> Result {
    let mut cluster = Cluster::single().await?;
    // Slots over half of the maximum age, two a second as nothing succeeded: fewer than deliveries.
    let options = json!({"delivery": {"concurrency": 1, "max_age": 240,
        "circuit_breaker": {"failures": 1, "open": 90}}});
    let hook = hook(&cluster, "/hook", &options).await?;
    cluster.receiver.answer("/hook", &[500]);
    // A restarted dispatcher has not seen the ping succeed.
    cluster.dispatchers[0].stop().await?;
    cluster.dispatchers[0].start()?;
    cluster.ready().await?;
    let parked = |parked| Leftovers { dead: 0, parked };
    publish(&cluster, &json!({ "n": 0 })).await?;
    // Deliveries before that would be deferred for lack of a permit.
    eventually(SOON, "the circuit opens", async || {
        let openings = cluster.dispatchers_metric(OPENINGS, &[]).await?;
        ensure!(openings == 1.0, "{openings} openings");
        Ok(())
    })
    .await?;
    for n in 1..700 {
        publish(&cluster, &json!({ "n": n })).await?;
    }
    cluster.rest_leaving(parked(700)).await?;
    let path = format!(
        "/event-hooks/{}/deliveries?size=1000",
        e2e::admin::id(&hook)?
    );
    let list = cluster.admin().get(&path).await?.expect(200)?;
    let waiting = list["data"].as_array().expect("a list");
    let mut seconds = std::collections::BTreeMap::new();
    for delivery in waiting {
        let due = delivery["due_at"].as_f64().expect("a time");
        *seconds.entry(due as u64).or_insert(0) += 1;
    }
    let busiest = seconds.values().copied().max().unwrap_or(0);
    assert!((4..=16).contains(&busiest), "{busiest} in one second");
    let (first, last) = (seconds.keys().next(), seconds.keys().next_back());
    let span = last.zip(first).map_or(0, |(last, first)| last - first);
    assert!((100..=130).contains(&span), "over {span} s");
    cluster.finish_leaving(parked(700)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_backlog_is_counted_while_few_deliveries_wait() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    let gets = format!("$JS.API.DIRECT.GET.{}", wire::DELIVERIES);
    let mut gets = cluster.nats.client().subscribe(gets).await?;
    let id = e2e::admin::id(&hook(&cluster, "/hook", &json!({})).await?)?.to_owned();
    cluster.receiver.answer("/hook", &[500]);
    for n in 0..3 {
        publish(&cluster, &json!({ "n": n })).await?;
    }
    let parked = Leftovers { dead: 0, parked: 3 };
    cluster.rest_leaving(parked).await?;
    while let Some(get) = gets.next().now_or_never().flatten() {
        let request = String::from_utf8_lossy(&get.payload);
        ensure!(!request.contains(&id), "{request}");
    }
    // Listing the hook's deliveries does count them.
    let path = format!("/event-hooks/{id}/deliveries");
    cluster.admin().get(&path).await?.expect(200)?;
    let asked = async {
        while let Some(get) = gets.next().await {
            if String::from_utf8_lossy(&get.payload).contains(&id) {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(SOON, asked).await?);
    cluster.finish_leaving(parked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_over_the_backlog_limit_or_the_maximum_age_are_dead_lettered() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_HOOK_BACKLOG", "5")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    hook(&cluster, "/full", &json!({})).await?;
    cluster.receiver.answer("/full", &[500]);
    for n in 0..8_u64 {
        publish(&cluster, &json!({ "n": n })).await?;
        // One by one, since deliveries on their way to the stream are not counted yet.
        let parked = (n + 1).min(5);
        let dead = n + 1 - parked;
        cluster.rest_leaving(Leftovers { dead, parked }).await?;
    }
    for letter in cluster.nats.dead_letters(3).await? {
        let reason = e2e::nats::reason(&letter);
        assert_eq!(reason, "backlog full: the receiver answered 500");
    }

    let old = hook_of(&cluster, "/old", &json!({"delivery": {"max_age": 60}})).await?;
    cluster.receiver.answer("/old", &[500]);
    publish(&cluster, &json!({})).await?;
    let dead = cluster.nats.dead_letters(5).await?;
    let subject = format!("hookline.dead.{}.", e2e::admin::id(&old)?);
    let letter = dead
        .iter()
        .find(|letter| letter.subject.starts_with(&subject));
    assert!(letter.is_some(), "ten minutes are more than it may wait");
    cluster
        .finish_leaving(Leftovers { dead: 5, parked: 5 })
        .await
}
