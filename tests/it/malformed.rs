//! Malformed events, deliveries and hooks.

use std::collections::HashSet;

use async_nats::HeaderMap;
use e2e::nats::reason;
use e2e::{Cluster, Leftovers, Result, wire};
use hookline_shared::subject;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_events_are_buried_with_a_reason_and_block_nothing() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;

    let deep = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let garbage: Vec<u8> = (0..1 << 20u32).map(|n: u32| (n * 31 % 251) as u8).collect();
    let events = wire::event("crud", "consumers");
    let malformed: [(&str, &str, &[u8]); 7] = [
        ("not JSON", &events, b"hello"),
        ("empty", &events, b""),
        ("not an object", &events, b"[{\"a\":1}]"),
        ("nested too deep", &events, deep.as_bytes()),
        ("two tokens too few", "hookline.events.default", b"{}"),
        (
            "one token too many",
            "hookline.events.default.crud.a.b",
            b"{}",
        ),
        ("1 MiB of garbage", &events, &garbage),
    ];
    for (n, (_, subject, body)) in malformed.iter().enumerate() {
        cluster.nats.publish(*subject, body).await?;
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }

    let good = malformed.len();
    cluster.receiver.wait_for("/hook", good).await?;
    let dead = cluster.nats.dead_letters(malformed.len()).await?;
    let leftovers = Leftovers {
        dead: malformed.len() as u64,
        parked: 0,
    };
    cluster.rest_leaving(leftovers).await?;

    assert_eq!(cluster.receiver.events("/hook").len(), good);
    let mut subjects = HashSet::new();
    for letter in &dead {
        let subject = letter.subject.as_str();
        assert!(subject.starts_with("hookline.dead.event."), "{subject}");
        assert!(subjects.insert(subject), "each event has its own letter");
        assert!(!reason(letter).is_empty());
        assert!(letter.payload.len() <= 128 * 1024, "it is truncated");
    }
    // Letters and events are matched by the beginning of the body.
    for (what, _, body) in malformed {
        let start = &body[..body.len().min(1_000)];
        let letter = dead.iter().find(|letter| letter.payload.starts_with(start));
        assert!(letter.is_some(), "{what}");
    }
    let reasons: HashSet<&str> = dead.iter().map(reason).collect();
    assert!(reasons.len() >= 4, "they differ: {reasons:?}");

    let counted = cluster.dispatchers_metric("hookline_events_total", &[("outcome", "malformed")]);
    let counted = counted.await?;
    assert!((counted - 7.0).abs() < 0.1, "{counted} counted");
    let logged = cluster
        .dispatchers
        .iter()
        .flat_map(|d| d.log_lines())
        .filter(|line| line.level() == "WARN")
        .count();
    assert!(logged >= 7, "{logged} logged");
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_delivery_that_cannot_be_read_is_a_dead_letter_of_its_hook() -> Result {
    let cluster = Cluster::single().await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let id = e2e::admin::id(&hook)?;
    let subject = format!("hookline.deliveries.due.{id}.nothing");
    cluster.nats.publish(subject, "no delivery").await?;
    let letter = cluster.nats.dead_letters(1).await?.remove(0);
    let (subject, of_hook) = (letter.subject.as_str(), format!("hookline.dead.{id}."));
    assert!(subject.starts_with(&of_hook), "{subject}");
    assert_eq!(reason(&letter), "the stored delivery cannot be read");
    let leftovers = Leftovers { dead: 1, parked: 0 };
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_in_internal_subjects_reaches_no_hook_and_no_subject() -> Result {
    let cluster = Cluster::single().await?;
    let team = json!({ "name": "team" });
    cluster
        .admin()
        .post("/workspaces", &team)
        .await?
        .expect(201)?;
    let config = json!({ "url": cluster.receiver.url("/hook") });
    let hook = e2e::admin::hook("crud", "consumers", "webhook", config);
    let hook = cluster
        .admin()
        .post("/team/event-hooks", &hook)
        .await?
        .expect(201)?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let id = e2e::admin::id(&hook)?;
    let jetstream = cluster.nats.jetstream();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Hookline-Subject", "hookline.events.other.crud.consumers"),
        ("Hookline-Event-Id", "1"),
        ("Hookline-Event-Id-Given", "1"),
        ("Hookline-Attempt", "1"),
        ("Hookline-First-Attempt", "1"),
    ] {
        headers.insert(name, value);
    }
    for kind in ["now", "due"] {
        let subject = format!("hookline.deliveries.{kind}.{id}.forged");
        let sent = jetstream.publish_with_headers(subject, headers.clone(), "{}".into());
        sent.await?.await?;
    }
    cluster.nats.dead_letters(2).await?;
    // The answer would be an event.
    let request = json!({ "hook": id }).to_string();
    let client = cluster.nats.client();
    let reply = "hookline.events.team.crud.consumers";
    client
        .publish_with_reply("hookline.rpc.ping", reply, request.into())
        .await?;
    client.flush().await?;
    let consumer = json!({ "username": "one" });
    cluster
        .admin()
        .post("/team/consumers", &consumer)
        .await?
        .expect(201)?;
    cluster.receiver.wait_for("/hook", 1).await?;
    let leftovers = Leftovers { dead: 2, parked: 0 };
    cluster.rest_leaving(leftovers).await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 1);
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_hook_that_is_invalid_or_under_another_key_is_ignored() -> Result {
    let cluster = Cluster::single().await?;
    let mut hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    hook["config"]["url"] = cluster.receiver.url("/other").into();
    let key = |id: &str| subject::entity_key("default", subject::HOOK_KIND, id);
    let (anothers, none) = (
        key("00000000-0000-4000-8000-000000000001"),
        key("00000000-0000-4000-8000-000000000002"),
    );
    let nats = &cluster.nats;
    nats.publish(&anothers, hook.to_string()).await?;
    nats.publish(&none, "no hook").await?;
    nats.publish(subject::HOOKS_REVISION, "").await?;
    cluster.admin().create_consumer("one").await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    // Its deletion changes no hook either.
    let mut deleted = HeaderMap::new();
    deleted.insert("KV-Operation", "DEL");
    let jetstream = nats.jetstream();
    let sent = jetstream.publish_with_headers(anothers, deleted, "".into());
    sent.await?.await?;
    nats.publish(subject::HOOKS_REVISION, "").await?;
    cluster.admin().create_consumer("two").await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    cluster.rest().await?;
    assert_eq!(cluster.receiver.event_count(), 2);
    let lines = cluster.dispatchers[0].log_lines().into_iter();
    let errors = lines.filter(|line| line.level() == "ERROR").count();
    assert_eq!(errors, 2, "each is logged once");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_an_emoji_is_an_event() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/bytes").await?;
    let admin = cluster.admin();
    let custom = json!({
        "url": cluster.receiver.url("/text"), "method": "POST", "body": "{{ title }}",
        "headers": { "content-type": "text/plain" },
    });
    admin.hook_consumers("webhook-custom", custom).await?;
    let script = json!({ "functions": ["return function(data) error(data.title) end"] });
    admin.hook_consumers("lambda", script).await?;
    let data = r#"{"title":"a\ud83d","pair":"\ud83d\ude00","n":1.50}"#;
    let subject = wire::event("crud", "consumers");
    cluster.nats.publish(subject, data).await?;

    let bytes = cluster.receiver.wait_for_one("/bytes").await?;
    let fields = data.trim_matches(['{', '}']);
    assert!(bytes.text().contains(fields), "{}", bytes.text());
    let text = cluster.receiver.wait_for_one("/text").await?;
    assert_eq!(text.text(), "a\u{fffd}");
    let dead = cluster.nats.dead_letters(1).await?;
    let said = reason(&dead[0]);
    assert!(
        said.contains("a\u{fffd}") || said.contains("a%EF%BF%BD"),
        "{said}"
    );
    let leftovers = Leftovers { dead: 1, parked: 0 };
    cluster.finish_leaving(leftovers).await
}
