//! Waiting deliveries, dead letters and replay in the Admin API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Leftovers, Result, SOON, eventually};
use serde_json::{Value, json};

/// Of the event stream.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

async fn list(cluster: &Cluster, path: &str) -> Result<Value> {
    cluster.admin().get(path).await?.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_replayed_and_deleted() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "0,1,5s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    let base = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    cluster.receiver.answer("/hook", &[500]);
    for n in 0..5 {
        cluster
            .admin()
            .create_consumer(&format!("user-{n}"))
            .await?;
    }
    cluster
        .rest_leaving(Leftovers { dead: 5, parked: 0 })
        .await?;

    let dead = list(&cluster, &format!("{base}/deliveries?state=dead&size=2")).await?;
    assert_eq!(dead["counts"], json!({"waiting": 0, "dead": 5}));
    assert_eq!(dead["data"].as_array().map(Vec::len), Some(2));
    let first = &dead["data"][0];
    assert_eq!(first["reason"], "the receiver answered 500");
    assert_eq!(
        (&first["source"], &first["event"]),
        (&json!("crud"), &json!("consumers"))
    );
    assert_eq!(first["attempt"], 2);
    let next = dead["next"].as_str().expect("there are more").to_owned();
    let more = list(&cluster, &next).await?;
    assert_eq!(more["data"].as_array().map(Vec::len), Some(2));
    assert_ne!(more["data"][0]["id"], first["id"]);

    // First one, then the rest. Each starts its schedule over.
    cluster.receiver.answer("/hook", &[500, 200]);
    let before = cluster.receiver.events("/hook").len();
    let path = format!("{base}/dead/replay");
    let replay = async |body: Value| cluster.admin().post(&path, &body).await;
    let one = replay(json!({"id": first["id"]})).await?.expect(200)?;
    assert_eq!(one, json!({"replayed": 1}));
    let events = cluster.receiver.wait_for("/hook", before + 2).await?;
    assert_eq!(events[before].answered, Some(500));
    assert_eq!(
        events[before].webhook_id(),
        first["id"].as_str().unwrap_or_default()
    );
    assert_eq!(events[before + 1].webhook_id(), events[before].webhook_id());
    cluster
        .rest_leaving(Leftovers { dead: 4, parked: 0 })
        .await?;
    replay(json!({"id": first["id"]})).await?.expect(404)?;
    replay(json!({"id": "*"})).await?.expect(400)?;
    let late = replay(json!({"since": 4_000_000_000_u64})).await?;
    assert_eq!(late.expect(200)?, json!({"replayed": 0}));

    let second = more["data"][0]["id"].as_str().unwrap_or_default();
    let gone = cluster
        .admin()
        .delete(&format!("{base}/dead/{second}"))
        .await?;
    gone.expect(204)?;
    assert_eq!(
        replay(json!({ "all": true })).await?.expect(200)?,
        json!({"replayed": 3})
    );
    cluster.receiver.wait_for("/hook", before + 5).await?;
    cluster.control("/hook").await?;
    let events = cluster.receiver.events("/hook");
    assert_eq!(events.len(), before + 5);
    let replayed = &events[before..];
    assert!(replayed.iter().all(|event| event.webhook_id() != second));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_deliveries_are_listed_with_reason_and_due_time() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.receiver.answer("/hook", &[503]);
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
    cluster.admin().create_consumer("ada").await?;
    let leftovers = Leftovers { dead: 0, parked: 1 };
    cluster.rest_leaving(leftovers).await?;
    let path = format!("/event-hooks/{}/deliveries", e2e::admin::id(&hook)?);
    let waiting = list(&cluster, &path).await?;
    assert_eq!(waiting["counts"], json!({"waiting": 1, "dead": 0}));
    let one = &waiting["data"][0];
    assert_eq!(
        (&one["state"], &one["attempt"]),
        (&json!("waiting"), &json!(2))
    );
    let due = one["due_at"].as_f64().unwrap_or_default();
    let stored = one["stored_at"].as_f64().unwrap_or_default();
    // Ten minutes with 20% jitter.
    assert!(due - before.as_secs_f64() >= 480.0, "{one}");
    assert!(due - stored <= 721.0, "{one}");
    assert_eq!(waiting["next"], Value::Null);
    cluster
        .admin()
        .get(&format!("{path}?state=x"))
        .await?
        .expect(400)?;
    cluster
        .admin()
        .get("/event-hooks/nobody/deliveries")
        .await?
        .expect(404)?;
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_events_are_listed_and_deleted() -> Result {
    let cluster = Cluster::single().await?;
    for body in ["not JSON", "[]"] {
        let subject = e2e::wire::event("crud", "consumers");
        cluster.nats.publish(subject, body).await?;
    }
    let dead = eventually(SOON, "both are dead", async || {
        let dead = list(&cluster, "/dead-events").await?;
        ensure!(dead["counts"]["dead"] == 2, "{dead}");
        Ok(dead)
    })
    .await?;
    let one = &dead["data"][0];
    let reason = one["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("the body is not"), "{one}");
    assert_eq!(one["event"], "consumers");
    let id = one["id"].as_str().unwrap_or_default();
    cluster
        .admin()
        .delete(&format!("/dead-events/{id}"))
        .await?
        .expect(204)?;
    assert_eq!(list(&cluster, "/dead-events").await?["counts"]["dead"], 1);
    for wrong in ["/dead-events", "/dead-events?id=zzz"] {
        cluster.admin().delete(wrong).await?.expect(400)?;
    }
    let all = "/dead-events?all=true";
    cluster.admin().delete(all).await?.expect(204)?;
    cluster.finish().await
}

/// The path and what is shown of the dead event with a field of that value.
async fn dead_event(cluster: &Cluster, field: &str, value: Value) -> Result<(String, Value)> {
    for letter in cluster.admin().list("/dead-events").await? {
        let id = letter["id"].as_str().context("an id")?;
        let path = format!("/dead-events/{id}");
        let shown = list(cluster, &path).await?;
        if shown[field] == value {
            return Ok((path, shown));
        }
    }
    anyhow::bail!("none has {field} {value}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_event_is_shown_with_its_subject_and_body() -> Result {
    let cluster = Cluster::single().await?;
    let subject = e2e::wire::event("crud", "consumers");
    let long = "x".repeat(100_000);
    for body in [b"{'n': 1}", &b"\xff\x00"[..], long.as_bytes()] {
        cluster.nats.publish(subject.clone(), body).await?;
    }
    cluster.nats.dead_letters(3).await?;
    let (_, quoted) = dead_event(&cluster, "body", json!("{'n': 1}")).await?;
    assert_eq!(
        (&quoted["subject"], &quoted["size"], &quoted["kept"]),
        (&json!(subject), &json!(8), &json!(8))
    );
    let (_, binary) = dead_event(&cluster, "body_base64", json!("/wA=")).await?;
    assert_eq!(binary.get("body"), None);
    let (path, long) = dead_event(&cluster, "size", json!(100_000)).await?;
    assert_eq!(long["kept"], json!(65_536));
    let publish = format!("{path}/publish");
    let refused = cluster.admin().post(&publish, &json!({})).await?;
    let refused = refused.expect(400)?["message"].to_string();
    assert!(refused.contains("only the beginning"), "{refused}");
    let leftovers = Leftovers { dead: 3, parked: 0 };
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_event_is_published_again_once_it_is_an_event() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    let subject = e2e::wire::event("crud", "consumers");
    let jetstream = cluster.nats.jetstream();
    let order = async |body: &'static str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "order-7");
        let sent = jetstream.publish_with_headers(subject.clone(), headers, body.into());
        Result::Ok(sent.await?.await?)
    };
    order("{'n': 1}").await?;
    let short = "hookline.events.default.crud";
    cluster.nats.publish(short, r#"{"n":2}"#).await?;
    cluster.nats.dead_letters(2).await?;
    let (quoted, _) = dead_event(&cluster, "body", json!("{'n': 1}")).await?;
    let (short, _) = dead_event(&cluster, "subject", json!(short)).await?;
    let publish = async |id: &str, body: Value| {
        let path = format!("{id}/publish");
        cluster.admin().post(&path, &body).await
    };
    let internal = "hookline.events.default.kong:event_hooks.ping";
    for (id, body, message) in [
        (&quoted, json!({}), "it is no event: the body is not"),
        (&quoted, json!({ "data": [] }), "data must be an object"),
        (&quoted, json!({ "dta": {} }), "unknown parameter 'dta'"),
        (&short, json!({}), "the subject is not hookline.events."),
        (&short, json!({ "subject": 5 }), "subject must be a text"),
        (&short, json!({ "subject": internal }), "from gateways only"),
    ] {
        let refused = publish(id, body.clone()).await?.expect(400)?;
        let said = refused["message"].as_str().unwrap_or_default();
        assert!(said.contains(message), "{body}: {said}");
    }
    publish("/dead-events/none", json!({})).await?.expect(404)?;
    // For NATS, the same id within its duplicate window is the same event.
    e2e::wait::let_pass(2 * DUPLICATE_WINDOW).await;
    let mended = json!({ "data": { "n": 1 } });
    let answer = publish(&quoted, mended).await?.expect(200)?;
    assert_eq!(answer, json!({ "published": "order-7" }));
    let elsewhere = json!({ "subject": subject });
    publish(&short, elsewhere).await?.expect(200)?;
    publish(&short, json!({})).await?.expect(404)?;
    cluster.receiver.wait_for("/hook", 2).await?;
    let events = cluster.receiver.events("/hook");
    let mut numbers: Vec<_> = events.iter().map(|event| &event.json["n"]).collect();
    numbers.sort_by_key(|n| n.as_u64());
    assert_eq!(numbers, [1, 2]);
    // The publisher's own second try is the same event.
    order(r#"{"n":1}"#).await?;
    cluster.rest().await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 2);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_hook_leaves_nothing_waiting() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.receiver.answer("/hook", &[503]);
    cluster.admin().create_consumer("ada").await?;
    cluster
        .rest_leaving(Leftovers { dead: 0, parked: 1 })
        .await?;
    // Deliveries of another hook stay.
    cluster.webhook("/other").await?;
    cluster.receiver.answer("/other", &[503]);
    cluster.admin().create_consumer("grace").await?;
    let both = Leftovers { dead: 0, parked: 3 };
    cluster.rest_leaving(both).await?;
    let path = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    cluster.admin().delete(&path).await?.expect(204)?;
    // Until the sweeper has come by.
    eventually(2 * SOON, "it is swept", async || {
        let parked = cluster.nats.count(e2e::wire::DELIVERIES).await?;
        ensure!(parked == 1, "{parked} wait");
        Ok(())
    })
    .await?;
    cluster.control("/other").await?;
    let other = Leftovers { dead: 0, parked: 1 };
    cluster.finish_leaving(other).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_made_again_under_the_same_id_inherits_nothing() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m")
        .start()
        .await?;
    let id = "c57340ab-9fed-40fd-bb7e-1cef8d37c2df";
    let path = format!("/event-hooks/{id}");
    let admin = cluster.admin();
    let put = async |to: &str, retry: Value| {
        let config = json!({ "url": cluster.receiver.url(to) });
        let mut hook = e2e::admin::hook("crud", "consumers", "webhook", config);
        hook["delivery"] = json!({ "retry": retry });
        hook["snooze"] = json!(600);
        admin.put(&path, &hook).await?.expect(200)
    };
    let counts = async || list(&cluster, &format!("{path}/deliveries")).await;
    put("/old", json!([])).await?;
    cluster.receiver.wait_for_ping("/old").await?;
    cluster.receiver.answer("/old", &[200, 503]);
    // One is made and leaves a mark, one is dead, one waits.
    let consumer = admin.create_consumer("ada").await?;
    cluster.receiver.wait_for("/old", 1).await?;
    admin.create_consumer("grace").await?;
    let dead = Leftovers { dead: 1, parked: 0 };
    cluster.rest_leaving(dead).await?;
    put("/old", json!([600])).await?;
    admin.create_consumer("edsger").await?;
    let both = Leftovers { dead: 1, parked: 1 };
    cluster.rest_leaving(both).await?;
    // In another workspace the id is taken, and nothing is removed.
    let team = json!({ "name": "team" });
    admin.post("/workspaces", &team).await?.expect(201)?;
    let config = json!({ "url": cluster.receiver.url("/team") });
    let hook = e2e::admin::hook("crud", "consumers", "webhook", config);
    admin
        .put(&format!("/team{path}"), &hook)
        .await?
        .expect(400)?;
    cluster.rest_leaving(both).await?;
    assert_eq!(counts().await?["counts"], json!({"waiting": 1, "dead": 1}));

    let waiting = cluster.nats.stream(e2e::wire::DELIVERIES).await?;
    let waiting = waiting.get_last_raw_message_by_subject("hookline.deliveries.wait.>");
    let waiting = waiting.await?;
    admin.delete(&path).await?.expect(204)?;
    cluster.rest().await?;
    put("/new", json!([])).await?;
    cluster.receiver.wait_for_ping("/new").await?;
    assert_eq!(counts().await?["counts"], json!({"waiting": 0, "dead": 0}));
    // What was in flight then comes late: it is the old one's.
    let jetstream = cluster.nats.jetstream();
    let due = waiting.subject.replace(".wait.", ".due.");
    let mut headers = async_nats::HeaderMap::new();
    for (name, values) in waiting.headers.iter() {
        let name: &str = name.as_ref();
        if name.starts_with("Hookline-") {
            let value = values.first().context("a value")?;
            headers.insert(name, value.as_str());
        }
    }
    let sent = jetstream.publish_with_headers(due, headers, waiting.payload);
    sent.await?.await?;
    cluster.rest().await?;
    let orphaned =
        cluster.dispatchers_metric("hookline_deliveries_total", &[("outcome", "orphaned")]);
    assert!(orphaned.await? >= 1.0);
    // The old one's mark does not silence the new one.
    let path = format!("/consumers/{}", e2e::admin::id(&consumer)?);
    let change = json!({ "custom_id": "1" });
    admin.patch(&path, &change).await?.expect(200)?;
    cluster.receiver.wait_for("/new", 1).await?;
    assert_eq!(cluster.receiver.events("/old").len(), 3);
    cluster.finish().await
}
