//! `webhook-custom`: method, body, payload and headers of the hook.

use anyhow::ensure;
use e2e::{Cluster, Request, Result, SOON, eventually, wire};
use hookline_shared::subject;
use serde_json::{Value, json};

/// Characters that are special in JSON, in forms or in HTML.
const ADA: &str = "Ada \"the Countess\" & co\\ <b>+é\n%41=";
const GRACE: &str = "Grace \"Amazing\" & co\\ <i>+ü\n%42=";

/// The requests of an event from the Admin API, about [`ADA`], and of a published one, about [`GRACE`].
async fn fired(cluster: &Cluster, method: &str, config: Value) -> Result<[Request; 2]> {
    let mut config = config;
    config["url"] = json!(cluster.receiver.url("/hook"));
    config["method"] = json!(method);
    cluster
        .admin()
        .hook_consumers("webhook-custom", config)
        .await?;

    cluster.admin().create_consumer(ADA).await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    let data = json!({ "entity": { "username": GRACE }, "operation": "create" });
    cluster.publish("crud", "consumers", &data).await?;
    let events = cluster.receiver.wait_for("/hook", 2).await?;
    let [first, second] = events.try_into().expect("two events, two requests");
    Ok([first, second])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_rendered_with_the_event() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "headers": { "content-type": "application/json" },
        "body": "{\"text\":\"{{ entity.username }} {{ operation }}d\",\
                 \"was\":\"{{ old_entity.username }}{{ nothing }}\",\
                 \"hook\":\"{{ source }}/{{ event }}\"}",
    });
    let requests = fired(&cluster, "PUT", config).await?;
    for (request, name) in requests.iter().zip([ADA, GRACE]) {
        assert_eq!(request.method, "PUT");
        assert_eq!(request.header("content-type"), "application/json");
        let text = format!("{name} created");
        let expected = json!({ "text": text, "was": "", "hook": "crud/consumers" });
        assert_eq!(request.json, expected, "{}", request.text());
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_text_body_is_not_escaped() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "headers": { "content-type": "text/plain" },
        "body": "{{ entity.username }}",
    });
    let requests = fired(&cluster, "POST", config).await?;
    for (request, name) in requests.iter().zip([ADA, GRACE]) {
        assert_eq!(request.header("content-type"), "text/plain");
        assert_eq!(request.text(), name);
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_goes_as_json() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "headers": { "content-type": "application/json" },
        "payload": { "text": "Consumer `{{ entity.username }}` {{ operation }}d", "fixed": "1" },
    });
    let requests = fired(&cluster, "POST", config).await?;
    for (request, name) in requests.iter().zip([ADA, GRACE]) {
        assert_eq!(request.header("content-type"), "application/json");
        let text = format!("Consumer `{name}` created");
        assert_eq!(request.json, json!({ "text": text, "fixed": "1" }));
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_goes_as_a_form_where_the_content_type_says_so() -> Result {
    let cluster = Cluster::single().await?;
    let form = "application/x-www-form-urlencoded";
    let config = json!({
        "headers": { "content-type": form },
        "payload": { "text": "{{ entity.username }} {{ operation }}d", "a&b": "1" },
    });
    let requests = fired(&cluster, "POST", config).await?;
    for (request, name) in requests.iter().zip([ADA, GRACE]) {
        assert_eq!(request.header("content-type"), form);
        let mut pairs: Vec<_> = form_urlencoded::parse(&request.body).into_owned().collect();
        pairs.sort();
        let text = format!("{name} created");
        let expected = [("a&b".into(), "1".into()), ("text".into(), text)];
        assert_eq!(pairs, expected);
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_rendered_where_headers_format_is_true() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "headers": { "x-what": "{{ schema }}{{ event }} {{ operation }}d", "x-plain": "as is" },
        "headers_format": true,
        "body": "hello",
    });
    let requests = fired(&cluster, "POST", config).await?;
    // The published event has no `schema`.
    for (request, what) in requests
        .iter()
        .zip(["consumersconsumers created", "consumers created"])
    {
        assert_eq!(request.header("x-what"), what);
        assert_eq!(request.header("x-plain"), "as is");
        assert_eq!(request.text(), "hello");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_go_as_they_are_where_headers_format_is_false() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "headers": { "x-what": "{{ operation }}d" },
        "headers_format": false,
        "body": "{{ operation }}d",
    });
    for request in fired(&cluster, "POST", config).await? {
        assert_eq!(request.header("x-what"), "{{ operation }}d");
        assert_eq!(request.text(), "created");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_goes_as_it_is_where_body_format_is_false() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "headers": { "content-type": "text/plain", "x-what": "{{ operation }}d" },
        "headers_format": true,
        "body": "{{ operation }}d {{ unclosed",
        "body_format": false,
    });
    for request in fired(&cluster, "POST", config).await? {
        assert_eq!(request.text(), "{{ operation }}d {{ unclosed");
        assert_eq!(request.header("x-what"), "created");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_goes_as_it_is_where_payload_format_is_false() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "headers": { "content-type": "application/json" },
        "payload": { "text": "{{ operation }}d" },
        "payload_format": false,
    });
    for request in fired(&cluster, "POST", config).await? {
        assert_eq!(request.json, json!({ "text": "{{ operation }}d" }));
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_wins_over_a_payload() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({ "body": "the body", "payload": { "text": "the payload" } });
    for request in fired(&cluster, "POST", config).await? {
        assert_eq!(request.text(), "the body");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_cannot_add_a_header_through_a_template() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "url": cluster.receiver.url("/hook"), "method": "POST", "body": "hello",
        "headers": { "x-user": "{{ entity.username }}" }, "headers_format": true,
    });
    cluster
        .admin()
        .hook_consumers("webhook-custom", config)
        .await?;
    let data = json!({ "entity": { "username": "Eve\r\nx-evil: 1\r\n\r\nx" } });
    cluster.publish("crud", "consumers", &data).await?;

    // Delivered with a harmless value, or dead: both are sound.
    eventually(SOON, "the event is settled", async || {
        let dead = cluster.nats.count(wire::DEAD).await?;
        let delivered = cluster.receiver.event_count() as u64;
        ensure!(dead + delivered > 0, "not yet");
        Ok(())
    })
    .await?;
    // A harmless name does end up in the header.
    let data = json!({ "entity": { "username": "Ada" } });
    cluster.publish("crud", "consumers", &data).await?;
    eventually(SOON, "Ada's event is delivered", async || {
        let requests = cluster.receiver.events("/hook");
        let is_adas = |request: &Request| request.header("x-user") == "Ada";
        ensure!(requests.iter().any(is_adas), "{requests:?}");
        Ok(())
    })
    .await?;
    for request in cluster.receiver.requests("/hook") {
        assert!(!request.headers.contains_key("x-evil"));
        assert_eq!(request.text(), "hello");
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_hook_cannot_frame_its_requests() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "url": cluster.receiver.url("/hook"), "method": "POST", "body": "{{ entity.username }}",
        "headers": { "x-a": "1" },
    });
    let mut hook = cluster
        .admin()
        .hook_consumers("webhook-custom", config)
        .await?;
    // As an earlier version accepted it.
    hook["config"]["headers"] = json!({
        "x-a": "{{ 2 }}", "Content-Length": "5", "Host": "internal.example", "Transfer-Encoding": "chunked",
        "Connection": "Upgrade", "Upgrade": "h2c", "Expect": "100-continue",
    });
    hook["config"]["headers_format"] = json!(true);
    let key = subject::entity_key("default", subject::HOOK_KIND, e2e::admin::id(&hook)?);
    cluster.nats.publish(&key, hook.to_string()).await?;
    cluster.nats.publish(subject::HOOKS_REVISION, "").await?;
    cluster.admin().create_consumer(ADA).await?;
    let request = cluster.receiver.wait_for_one("/hook").await?;
    assert_eq!(request.text(), ADA);
    assert_eq!(request.header("x-a"), "2");
    assert_eq!(request.header("content-length"), ADA.len().to_string());
    let host = cluster.receiver.url("/hook");
    assert!(
        host.contains(request.header("host")),
        "{}",
        request.header("host")
    );
    for name in ["transfer-encoding", "connection", "upgrade", "expect"] {
        assert!(!request.headers.contains_key(name), "{name}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_arrive_as_published() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "url": cluster.receiver.url("/custom"), "method": "POST",
        "headers": { "content-type": "application/json" },
        "body": "{\"all\": {{ numbers }}, \"one\": {{ numbers.price }}, \"twice\": {{ numbers.price * 2 }}}",
    });
    let admin = cluster.admin();
    admin.hook_consumers("webhook-custom", config).await?;
    cluster.webhook("/plain").await?;
    // A value is looked up where the data names itself, too.
    cluster.receiver.wait_for_ping("/plain").await?;
    let numbers = r#"{"big":123456789012345678901234567890,"e":1e3,"huge":-1e400,"price":1.50}"#;
    for data in [
        format!(r#"{{"numbers":{numbers}}}"#),
        format!(r#"{{"source":7,"numbers":{numbers}}}"#),
    ] {
        let subject = wire::event("crud", "consumers");
        cluster.nats.publish(subject, data).await?;
    }
    for request in cluster.receiver.wait_for("/plain", 2).await? {
        let text = request.text();
        assert!(text.contains(&format!("\"numbers\":{numbers}")), "{text}");
    }
    for request in cluster.receiver.wait_for("/custom", 2).await? {
        let want = format!(r#"{{"all": {numbers}, "one": 1.50, "twice": 3.0}}"#);
        assert_eq!(request.text(), want);
    }
    cluster.finish().await
}
