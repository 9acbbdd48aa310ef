//! Pings and tests, in the shapes of Kong's reference.

use e2e::{Cluster, Leftovers, Result};
use serde_json::{Value, json};

/// The names of an object's fields, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object();
    let mut keys: Vec<&str> = object
        .map(|object| object.keys().map(String::as_str).collect())
        .unwrap_or_default();
    keys.sort_unstable();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_webhook_pings_without_nulls() -> Result {
    let cluster = Cluster::double().await?;
    let fields = [
        ("source", "crud"),
        ("event", "consumers"),
        ("handler", "webhook"),
        ("config.url", &cluster.receiver.url("/hook")),
    ];
    let answer = cluster.admin().post_form("/event-hooks", &fields).await?;
    let hook = answer.expect(201)?;

    let ping = cluster.receiver.wait_for_ping("/hook").await?;
    assert_eq!(ping.method, "POST");
    assert_eq!(ping.header("content-type"), "application/json");
    let body = &ping.json;
    assert_eq!(keys(body), ["event", "event_hooks", "operation", "source"]);
    assert_eq!(body["source"], "kong:event_hooks");
    assert_eq!(body["event"], "ping");
    assert_eq!(body["operation"], "create");
    let pinged = &body["event_hooks"];
    let expected = [
        "config",
        "created_at",
        "event",
        "handler",
        "id",
        "source",
        "updated_at",
    ];
    assert_eq!(keys(pinged), expected);
    for key in ["id", "event", "source", "handler", "created_at"] {
        assert_eq!(pinged[key], hook[key], "{key}");
    }
    assert_eq!(pinged["config"]["url"], hook["config"]["url"]);
    assert!(!ping.text().contains("null"), "{}", ping.text());
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.pings("/hook").len(), 1, "pinged once");

    let path = format!("/event-hooks/{}/ping", e2e::admin::id(&hook)?);
    cluster.admin().get(&path).await?.expect(200)?;
    let pings = cluster.receiver.pings("/hook");
    assert_eq!(pings.len(), 2);
    assert!(pings[1].text().contains("null"), "a manual ping has nulls");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manual_ping_sends_the_hook_and_answers_what_it_sent() -> Result {
    let cluster = Cluster::double().await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;

    let path = format!("/event-hooks/{}/ping", e2e::admin::id(&hook)?);
    let answer = cluster.admin().get(&path).await?.expect(200)?;

    let pings = cluster.receiver.pings("/hook");
    let manual = pings.iter().find(|ping| ping.json["operation"].is_null());
    let manual = manual.expect("it was answered, so it was sent");
    assert_eq!(manual.json, answer);
    assert_eq!(keys(&answer), ["event", "event_hooks", "source"]);
    assert_eq!(answer["source"], "kong:event_hooks");
    assert_eq!(answer["event"], "ping");
    let pinged = &answer["event_hooks"];
    for key in keys(&hook) {
        // The answer says more than the hook.
        if key != "config" && key != "hears" {
            assert_eq!(pinged[key], hook[key], "{key}");
        }
    }
    for key in ["snooze", "on_change"] {
        assert_eq!(pinged.get(key), Some(&Value::Null), "{key} is shown");
    }
    assert_eq!(pinged["config"]["url"], hook["config"]["url"]);
    assert_eq!(pinged["config"].get("secret"), Some(&Value::Null));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_delivers_what_was_posted_and_answers_the_result() -> Result {
    let cluster = Cluster::double().await?;
    let hook = cluster.webhook("/hook").await?;
    let receiver = &cluster.receiver;
    receiver.wait_for_ping("/hook").await?;
    receiver.answer_body("/hook", "thank you", ("x-receiver", "e2e"));

    let path = format!("/event-hooks/{}/test", e2e::admin::id(&hook)?);
    let posted = json!({ "consumer": { "username": "Jane Austen" } });
    let answer = cluster.admin().post(&path, &posted).await?.expect(200)?;

    let data = json!({
        "consumer": { "username": "Jane Austen" }, "event": "consumers", "source": "crud",
    });
    assert_eq!(keys(&answer), ["data", "result"]);
    assert_eq!(answer["data"], data);
    assert_eq!(keys(&answer["result"]), ["body", "headers", "status"]);
    assert_eq!(answer["result"]["status"], 200);
    assert_eq!(answer["result"]["body"], "thank you");
    let headers = answer["result"]["headers"].as_object();
    let headers = headers.expect("the headers are an object");
    let found = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("x-receiver"));
    assert_eq!(found.map(|(_, value)| value), Some(&json!("e2e")));
    assert_eq!(receiver.wait_for_one("/hook").await?.json, data);

    receiver.answer("/hook", &[503, 503, 200]);
    let answer = cluster.admin().post(&path, &posted).await?.expect(200)?;
    assert_eq!(answer["result"]["status"], 503);
    // An event with the same answer is retried, and later than the test would have been.
    let data = json!({ "n": 1 });
    cluster.publish("crud", "consumers", &data).await?;
    let events = receiver.wait_for("/hook", 4).await?;
    let retried: Vec<_> = events[2..].iter().map(|event| &event.json["n"]).collect();
    assert_eq!(retried, [1, 1], "a test is never retried");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_redacted_in_pings() -> Result {
    let cluster = Cluster::single().await?;
    let url = cluster.receiver.url("/hook");
    let config = json!({ "url": url, "secret": "marker-of-a-secret" });
    let hook = cluster.admin().hook_consumers("webhook", config).await?;
    let created = cluster.receiver.wait_for_ping("/hook").await?;
    assert!(!created.text().contains("marker-of-a-secret"));
    assert_eq!(created.json["event_hooks"]["config"]["url"], url);
    let signature = created.header("x-kong-signature");
    assert!(!signature.is_empty(), "the secret is in use");

    let path = format!("/event-hooks/{}/ping", e2e::admin::id(&hook)?);
    let answer = cluster.admin().get(&path).await?.expect(200)?;
    assert!(!answer.to_string().contains("marker-of-a-secret"));
    assert_eq!(answer["event_hooks"]["config"]["url"], url);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_without_a_dispatcher_is_answered_503() -> Result {
    let mut cluster = Cluster::single().await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.dispatchers[0].stop().await?;

    let path = format!("/event-hooks/{}/ping", e2e::admin::id(&hook)?);
    let answer = cluster.admin().get(&path).await?.expect(503)?;
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.contains("dispatcher"), "{answer}");

    let path = format!(
        "/event-hooks/{}/ping",
        "5d0b3c1e-0000-4000-8000-000000000000"
    );
    cluster.admin().get(&path).await?.expect(404)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_injector_pings_no_hook() -> Result {
    let cluster = Cluster::single().await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let subjects = [
        "kong:event_hooks.ping",
        "kong%3Aevent_hooks.ping",
        "%6Bong:event_hooks.ping",
    ];
    for (number, subject) in subjects.iter().enumerate() {
        for workspace in ["default", "other"] {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Hookline-Hook", e2e::admin::id(&hook)?);
            let subject = format!("hookline.events.{workspace}.{subject}");
            let body = json!({ "forged": number }).to_string();
            let jetstream = cluster.nats.jetstream();
            jetstream
                .publish_with_headers(subject, headers, body.into())
                .await?
                .await?;
        }
    }
    let dead = cluster.nats.dead_letters(6).await?;
    assert!(
        dead.iter()
            .all(|letter| letter.subject.starts_with("hookline.dead.event."))
    );
    cluster.admin().create_consumer("one").await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    assert_eq!(cluster.receiver.pings("/hook").len(), 1);
    cluster
        .finish_leaving(Leftovers { dead: 6, parked: 0 })
        .await
}
