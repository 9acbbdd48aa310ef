//! Events over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::{Cluster, Result, SOON, Sender, eventually};
use futures::future::{join_all, try_join_all};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const JSON: (&str, &str) = ("content-type", "application/json");
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

/// A CloudEvent in JSON.
fn event(id: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/node/1","type":"com.example.push","data":{data}}}"#
    )
}

async fn hook(cluster: &Cluster, source: &str, path: &str) -> Result<Value> {
    let config = json!({ "url": cluster.receiver.url(path) });
    let hook = json!({ "source": source, "handler": "webhook", "config": config });
    cluster.admin().create_hook(&hook).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_shown_once_and_raises_what_it_names() -> Result {
    let cluster = Cluster::double().await?;
    let (admin, gateway) = (cluster.admin(), &cluster.gateways[0]);
    hook(&cluster, "balancer", "/hook").await?;
    let body = json!({ "name": "sender", "sources": ["balancer", "a b/\u{e9}"] });
    let sender = Sender::with(gateway, admin, "/ingest-tokens", &body).await?;
    assert!(sender.token.starts_with("hookline_"), "{}", sender.token);
    let shown = admin.get("/ingest-tokens/sender").await?.expect(200)?;
    assert!(!shown.to_string().contains(&sender.token), "{shown}");
    let put = json!({ "sources": ["balancer", "a b/\u{e9}"], "comment": "again" });
    let put = admin
        .put("/ingest-tokens/sender", &put)
        .await?
        .expect(200)?;
    assert_eq!(put["token"], shown["token"], "the token stays");

    // At once on both nodes.
    for gateway in &cluster.gateways {
        let at = sender.at(gateway);
        let answer = at
            .raise("/events/balancer/health", &json!({ "n": 1 }))
            .await?;
        let ids = answer.expect(202)?;
        assert_eq!(ids["ids"].as_array().map(Vec::len), Some(1), "{ids}");
    }
    let events = cluster.receiver.wait_for("/hook", 2).await?;
    assert_eq!(events[0].json["source"], "balancer");
    assert_eq!(events[0].json["event"], "health");
    assert_eq!(events[0].json["n"], 1);
    sender
        .raise("/events/a%20b%2F%C3%A9/x", &json!({}))
        .await?
        .expect(202)?;
    sender
        .raise("/default/events/balancer/x", &json!({}))
        .await?
        .expect(202)?;
    let basic = format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("any:{}", sender.token))
    );
    let headers = [JSON, ("authorization", basic.as_str())];
    sender
        .send("/events/balancer/x", &headers, "{}")
        .await?
        .expect(202)?;

    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_raises_what_it_names_while_it_counts() -> Result {
    let cluster = Cluster::single().await?;
    let (admin, gateway) = (cluster.admin(), &cluster.gateways[0]);
    let body = json!({ "name": "sender", "sources": ["balancer"] });
    let sender = Sender::with(gateway, admin, "/ingest-tokens", &body).await?;
    let stranger = format!("Bearer {}x", &sender.token[..sender.token.len() - 1]);
    for (authorization, path, status, says) in [
        (None, "/events/crud/consumers", 403, "crud"),
        (None, "/events/balancer2/x", 403, "balancer2"),
        (None, "/events/kong:event_hooks/ping", 403, "only gateways"),
        (None, "/events/hookline:audit/x", 403, "only gateways"),
        (None, "/team-a/events/balancer/x", 403, "another workspace"),
        (
            Some("Bearer swordfish"),
            "/events/balancer/x",
            401,
            "no such",
        ),
        (
            Some(stranger.as_str()),
            "/events/balancer/x",
            401,
            "no such",
        ),
        (Some("Digest x"), "/events/balancer/x", 401, "no such"),
        (None, "/consumers", 404, "Not found"),
        (None, "/ingest-tokens", 404, "Not found"),
    ] {
        let mut headers = vec![JSON];
        headers.extend(authorization.map(|value| ("authorization", value)));
        let answer = sender.send(path, &headers, "{}").await?;
        let body = answer.expect(status).context(path)?;
        assert!(message(&body).contains(says), "{path}: {body}");
    }
    for (change, status) in [
        (json!({ "enabled": false }), 401),
        (json!({ "enabled": true }), 202),
        (json!({ "expires_at": 1 }), 401),
        (json!({ "expires_at": null }), 202),
        (json!({ "sources": ["*"] }), 202),
        (json!({ "sources": ["crud"] }), 403),
    ] {
        admin
            .patch("/ingest-tokens/sender", &change)
            .await?
            .expect(200)?;
        let answer = sender.raise("/events/balancer/x", &json!({})).await?;
        answer.expect(status).context(change.to_string())?;
    }
    sender
        .raise("/events/crud/consumers", &json!({}))
        .await?
        .expect(202)?;
    admin
        .patch("/ingest-tokens/sender", &json!({ "sources": ["*"] }))
        .await?
        .expect(200)?;
    let not_named = sender.raise("/events/dao:crud/create", &json!({})).await?;
    not_named.expect(403)?;
    // Another token in its place.
    let rotated = json!({ "token": "", "sources": ["balancer"] });
    let rotated = admin.patch("/ingest-tokens/sender", &rotated).await?;
    let rotated = rotated.expect(200)?;
    let answer = sender.raise("/events/balancer/x", &json!({})).await?;
    answer.expect(401)?;
    let mut sender = sender;
    sender.token = rotated["token"].as_str().context("a token")?.to_owned();
    sender
        .raise("/events/balancer/x", &json!({}))
        .await?
        .expect(202)?;
    admin.delete("/ingest-tokens/sender").await?.expect(204)?;
    let answer = sender.raise("/events/balancer/x", &json!({})).await?;
    answer.expect(401)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_belongs_to_a_workspace() -> Result {
    let cluster = Cluster::single().await?;
    let (admin, gateway) = (cluster.admin(), &cluster.gateways[0]);
    admin
        .post("/workspaces", &json!({ "name": "team-a" }))
        .await?
        .expect(201)?;
    for (path, at) in [
        ("/default/event-hooks", "/default"),
        ("/team-a/event-hooks", "/team-a"),
    ] {
        let config = json!({ "url": cluster.receiver.url(at) });
        let hook = json!({ "source": "s", "handler": "webhook", "config": config });
        admin.post(path, &hook).await?.expect(201)?;
    }
    let body = json!({ "name": "sender", "sources": ["*"] });
    let sender = Sender::with(gateway, admin, "/team-a/ingest-tokens", &body).await?;
    for path in ["/events/s/e", "/team-a/events/s/e"] {
        sender.raise(path, &json!({})).await?.expect(202)?;
    }
    sender
        .raise("/default/events/s/e", &json!({}))
        .await?
        .expect(403)?;
    cluster.receiver.wait_for("/team-a", 2).await?;
    cluster.rest().await?;
    assert!(cluster.receiver.events("/default").is_empty());
    for (body, says) in [
        (json!({ "name": "a", "sources": [] }), "at least one"),
        (json!({ "name": "a" }), "required field missing"),
        (
            json!({ "name": "a", "sources": ["hookline:x"] }),
            "only gateways",
        ),
        (
            json!({ "name": "a", "sources": ["x"], "token": "swordfish" }),
            "leave it out",
        ),
        (
            json!({ "name": "a", "sources": ["x"], "token": "sha256:swordfish" }),
            "leave it out",
        ),
    ] {
        let refused = admin.post("/ingest-tokens", &body).await?.expect(400)?;
        assert!(message(&refused).contains(says), "{refused}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloud_events_come_structured_in_headers_and_in_batches() -> Result {
    let cluster = Cluster::single().await?;
    hook(&cluster, "com.example", "/hook").await?;
    let sender = Sender::new(&cluster.gateways[0], &["com.example"]).await?;
    let structured = (
        "content-type",
        "application/cloudevents+json; charset=utf-8",
    );
    let data = r#"{"big":123456789012345678901234567890,"half":"\ud800","a":1.10}"#;
    sender
        .send("/events", &[structured], event("1", data))
        .await?
        .expect(202)?;
    let arrived = cluster.receiver.wait_for_one("/hook").await?;
    let body = String::from_utf8_lossy(&arrived.body).into_owned();
    assert!(body.contains("123456789012345678901234567890"), "{body}");

    let binary = [
        JSON,
        ("ce-specversion", "1.0"),
        ("ce-id", "2"),
        ("ce-source", "/node/%C3%A9"),
        ("ce-type", "com.example.push"),
        (
            "ce-traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    sender
        .send("/events", &binary, r#"{"n":2}"#)
        .await?
        .expect(202)?;
    let arrived = cluster.receiver.wait_for("/hook", 2).await?;
    assert_eq!(arrived[1].json["n"], 2);
    assert!(
        arrived[1]
            .header("traceparent")
            .starts_with("00-0af7651916cd43dd8448eb211c80319c")
    );

    let encoded = event("4", "{}").replace(r#""data":{}"#, r#""data_base64":"eyJuIjo0fQ==""#);
    let both = format!(
        "[{},{encoded},{}]",
        event("3", r#"{"n":3}"#),
        event("3", r#"{"n":3}"#)
    );
    let answer = sender.send("/events", &[BATCH], both).await?.expect(202)?;
    assert_eq!(answer["ids"].as_array().map(Vec::len), Some(3), "{answer}");
    assert_eq!(
        answer["duplicates"].as_array().map(Vec::len),
        Some(1),
        "{answer}"
    );
    let arrived = cluster.receiver.wait_for("/hook", 4).await?;
    let mut numbers: Vec<_> = arrived
        .iter()
        .filter_map(|one| one.json["n"].as_i64())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3, 4]);

    for (headers, body, status, says) in [
        (vec![structured], event("7", "[]"), 400, "object"),
        (vec![JSON], event("7", "{}"), 415, "which event is it"),
        (
            vec![("content-type", "application/cloudevents+avro")],
            String::new(),
            415,
            "which event",
        ),
        (
            binary[..3].to_vec(),
            "{}".to_owned(),
            400,
            "attribute source",
        ),
    ] {
        let refused = sender
            .send("/events", &headers, body)
            .await?
            .expect(status)?;
        assert!(message(&refused).contains(says), "{refused}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_batch_with_a_fault_nothing_comes() -> Result {
    let cluster = Cluster::single().await?;
    hook(&cluster, "com.example", "/hook").await?;
    let sender = Sender::new(&cluster.gateways[0], &["com.example"]).await?;
    let many = |count: usize| {
        let events: Vec<_> = (0..count).map(|n| event(&format!("m{n}"), "{}")).collect();
        format!("[{}]", events.join(","))
    };
    for (body, status, says) in [
        (
            format!("[{},{}]", event("5", "{}"), event("6", "[]")),
            400,
            "event 2 of the batch",
        ),
        (
            format!("[{},7]", event("5", "{}")),
            400,
            "event 2 of the batch",
        ),
        (many(1_001), 400, "at most 1000"),
        ("{".to_owned(), 400, "no CloudEvent"),
        (event("5", "{}"), 400, "no CloudEvent"),
    ] {
        let refused = sender
            .send("/events", &[BATCH], body)
            .await?
            .expect(status)?;
        assert!(message(&refused).contains(says), "{refused}");
    }
    sender
        .send("/events", &[BATCH], many(1_000))
        .await?
        .expect(202)?;
    cluster.rest().await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 1_000);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_counts_once_for_its_source() -> Result {
    let cluster = Cluster::double().await?;
    hook(&cluster, "one", "/one").await?;
    hook(&cluster, "two", "/two").await?;
    let sender = Sender::new(&cluster.gateways[0], &["one", "two"]).await?;
    let other = sender.at(&cluster.gateways[1]);
    let (path, data) = ("/events/one/e", json!({ "n": 1 }));
    // At the same time, here and there, and again.
    let same = (0..20).map(|_| sender.raise_once(path, "key", &data));
    let statuses: Vec<_> = try_join_all(same)
        .await?
        .iter()
        .map(|one| one.status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 202).count(),
        1,
        "{statuses:?}"
    );
    let again = sender.raise_once(path, "key", &data).await?.expect(200)?;
    assert_eq!(again["duplicates"], again["ids"], "{again}");
    let elsewhere = other.raise_once(path, "key", &data).await?;
    ensure!([200, 202].contains(&elsewhere.status), "{elsewhere:?}");
    assert_eq!(elsewhere.body["ids"], again["ids"]);
    // Other data is told so; other events, sources and letters count alone.
    let other_data = sender.raise_once(path, "key", &json!({ "n": 2 })).await?;
    other_data.expect(422)?;
    sender
        .raise_once("/events/one/another", "key", &data)
        .await?
        .expect(202)?;
    sender
        .raise_once("/events/two/e", "key", &data)
        .await?
        .expect(202)?;
    sender.raise_once(path, "Key", &data).await?.expect(202)?;
    let long = "k".repeat(512);
    sender.raise_once(path, &long, &data).await?.expect(202)?;
    sender
        .raise_once(path, &long[1..], &data)
        .await?
        .expect(202)?;
    let blank = r#"{"specversion":"1.0","id":"key ","source":"x","type":"one.e"}"#;
    let kind = ("content-type", "application/cloudevents+json");
    sender.send("/events", &[kind], blank).await?.expect(202)?;
    let plain = blank.replace("key ", "key");
    sender.send("/events", &[kind], plain).await?.expect(202)?;
    cluster.rest().await?;
    assert_eq!(cluster.receiver.events("/one").len(), 7);
    assert_eq!(cluster.receiver.events("/two").len(), 1);
    for (key, says) in [("", "is empty"), (&*format!("{long}k"), "513 bytes")] {
        let refused = sender.raise_once(path, key, &data).await?.expect(400)?;
        assert!(message(&refused).contains(says), "{refused}");
    }
    let twice = [JSON, ("idempotency-key", "a"), ("idempotency-key", "b")];
    sender.send(path, &twice, "{}").await?.expect(400)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_delivered_once_though_a_gateway_is_killed() -> Result {
    let mut cluster = Cluster::double().await?;
    hook(&cluster, "load", "/load").await?;
    let sender = Sender::new(&cluster.gateways[0], &["load"]).await?;
    let others = sender.at(&cluster.gateways[1]);
    let (answered, stop) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(AtomicBool::default()),
    );
    let clients = (0..32).map(|client| {
        let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
        let (first, second) = (sender.clone(), others.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let key = format!("{client}-{number}");
                let data = json!({ "key": key });
                // A client whose answer is lost sends it again, to another node.
                for sender in [&first, &second, &second] {
                    let sent = sender.raise_once("/events/load/e", &key, &data).await;
                    if sent.is_ok_and(|answer| [200, 202].contains(&answer.status)) {
                        answered.lock().push(key);
                        break;
                    }
                }
                number += 1;
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let many = |count: usize| {
        let answered = Arc::clone(&answered);
        eventually(SOON, "events are answered", async move || {
            let so_far = answered.lock().len();
            ensure!(so_far >= count, "{so_far} of {count}");
            Ok(())
        })
    };
    many(200).await?;
    cluster.gateways[0].process_mut().kill();
    let so_far = answered.lock().len();
    many(so_far + 200).await?;
    stop.store(true, Ordering::Relaxed);
    join_all(clients).await;
    let mut expected = std::mem::take(&mut *answered.lock());
    cluster.rest().await?;
    let arrived = cluster.receiver.events("/load");
    let mut keys: Vec<_> = arrived
        .iter()
        .map(|one| one.json["key"].as_str().unwrap_or_default().to_owned())
        .collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    assert_eq!(count, keys.len(), "some came twice");
    expected.sort_unstable();
    let missing = expected
        .iter()
        .filter(|key| keys.binary_search(key).is_err());
    assert_eq!(missing.count(), 0);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_takes_no_batches_gets_events_through_the_outbox() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_EVENT_BATCHES", "false")
        .dispatcher_env("HOOKLINE_EVENT_BATCHES", "false")
        .start()
        .await?;
    hook(&cluster, "s", "/hook").await?;
    let sender = Sender::new(&cluster.gateways[0], &["s"]).await?;
    let data = json!({});
    let events: Vec<_> = (0..200).map(|n| format!("{n}")).collect();
    let events = events
        .iter()
        .map(|key| sender.raise_once("/events/s/e", key, &data));
    for answer in try_join_all(events).await? {
        answer.expect(202)?;
    }
    cluster.rest().await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 200);
    let logged = cluster.gateways[0].process().log();
    assert_eq!(logged.matches("takes no atomic batches").count(), 1);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_requests_are_in_hand_than_there_is_room_for() -> Result {
    let cluster = Cluster::single().await?;
    let sender = Sender::new(&cluster.gateways[0], &["s"]).await?;
    let address = cluster.gateways[0].ingest().replace("http://", "");
    let nats = cluster.nats.processes().next().context("a server")?;
    nats.freeze()?;
    let request = format!(
        "POST /events/s/e HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}",
        sender.token
    );
    let mut open = Vec::new();
    for _ in 0..700 {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(request.as_bytes()).await?;
        open.push(stream);
    }
    let refused = eventually(SOON, "there is no room", async || {
        let answer = sender.raise("/events/s/e", &json!({})).await?;
        ensure!(message(&answer.body).contains("in hand"), "{answer:?}");
        Ok(answer)
    })
    .await;
    cluster
        .nats
        .processes()
        .next()
        .context("a server")?
        .thaw()?;
    let refused = refused?;
    assert_eq!(
        (refused.status, refused.retry_after.as_deref()),
        (503, Some("1"))
    );
    eventually(SOON, "there is room again", async || {
        let answer = sender.raise("/events/s/e", &json!({})).await?;
        ensure!(answer.status == 202, "{answer:?}");
        Ok(())
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_an_injector_leaves_open_keep_no_event_out() -> Result {
    let cluster = Cluster::single().await?;
    hook(&cluster, "s", "/hook").await?;
    let sender = Sender::new(&cluster.gateways[0], &["s"]).await?;
    let injector = cluster.nats.client_as("injector").await?;
    for number in 0..60 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", format!("open-{number}"));
        headers.insert("Nats-Batch-Sequence", "1");
        let subject = "hookline.events.default.never.ends";
        injector
            .publish_with_headers(subject, headers, "{}".into())
            .await?;
    }
    injector.flush().await?;
    let data = json!({});
    let answers = (0..100).map(|_| sender.raise("/events/s/e", &data));
    for answer in try_join_all(answers).await? {
        answer.expect(202)?;
    }
    cluster.receiver.wait_for("/hook", 100).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_and_a_lost_nats_say_when_to_come_again() -> Result {
    let mut cluster = Cluster::builder()
        .gateway_env("HOOKLINE_INGEST_EVENTS", "5,quiet=1000")
        .start()
        .await?;
    let sender = Sender::new(&cluster.gateways[0], &["s"]).await?;
    let data = json!({});
    let answers = try_join_all((0..20).map(|_| sender.raise("/events/s/e", &data))).await?;
    let refused: Vec<_> = answers.iter().filter(|one| one.status == 429).collect();
    ensure!(refused.len() >= 10, "{answers:?}");
    ensure!(refused.iter().all(|one| one.retry_after.is_some()));
    assert!(message(&refused[0].body).contains("HOOKLINE_INGEST_EVENTS"));
    cluster.rest().await?;

    cluster.nats.kill();
    let answer = eventually(SOON, "503", async || {
        let answer = sender.raise("/events/s/e", &data).await?;
        ensure!(answer.status == 503, "{answer:?}");
        Ok(answer)
    })
    .await?;
    assert_eq!(answer.retry_after.as_deref(), Some("1"));
    cluster.nats.start().await?;
    eventually(SOON, "events come in again", async || {
        let answer = sender.raise("/events/s/e", &data).await?;
        ensure!(answer.status == 202, "{answer:?}");
        Ok(())
    })
    .await?;
    cluster.finish().await
}

/// The status of a request with these header lines and body.
async fn raw(address: &str, start: &str, headers: &str, body: &[u8]) -> Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("{start} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).context("a status line")?;
    Ok(status.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_and_names_are_refused() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_ADMIN_MAX_HEADERS", "30")
        .gateway_env("HOOKLINE_ADMIN_MAX_BODY", "65536")
        .gateway_env("HOOKLINE_MAX_EVENT", "32768")
        .dispatcher_env("HOOKLINE_MAX_EVENT", "32768")
        .start()
        .await?;
    let sender = Sender::new(&cluster.gateways[0], &["*"]).await?;
    let nested = format!("{{\"a\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let of_bytes = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    for (body, status) in [
        ("", 400),
        ("null", 400),
        ("[]", 400),
        ("{", 400),
        ("{\"a\":1,}", 400),
        (nested.as_str(), 400),
        (&of_bytes(40_000), 413),
        (&of_bytes(70_000), 413),
        ("{\"\u{0}\":\"\\u0000\"}", 400),
    ] {
        let answer = sender.send("/events/s/e", &[JSON], body).await?;
        answer
            .expect(status)
            .with_context(|| body.chars().take(20).collect::<String>())?;
    }
    let not_utf8 = sender
        .send("/events/s/e", &[JSON], b"{\"a\":\"\xff\"}".to_vec())
        .await?;
    not_utf8.expect(400)?;
    let long = format!("/events/{}/e", "s".repeat(256));
    sender.raise(&long, &json!({})).await?.expect(400)?;
    let most = format!("/events/{}/{}", "%C3%A9".repeat(127), "%2F".repeat(255));
    let key = "%".repeat(512);
    sender
        .raise_once(&most, &key, &json!({}))
        .await?
        .expect(202)?;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
    ] {
        let answer = sender
            .send("/events/s/e", &[("content-type", kind)], "{}")
            .await?;
        answer.expect(415).context(kind)?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_heads_are_refused_as_on_the_admin_port() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_ADMIN_MAX_HEADERS", "30")
        .start()
        .await?;
    let sender = Sender::new(&cluster.gateways[0], &["*"]).await?;
    let address = cluster.gateways[0].ingest().replace("http://", "");
    let own = format!(
        "Host: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n",
        sender.token
    );
    let many = (0..40).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let post = "POST /events/s/e";
    for (start, headers, status) in [
        (post, own.clone(), 202),
        ("GET /events/s/e", own.clone(), 405),
        ("PUT /events/s/e", own.clone(), 405),
        ("OPTIONS /events/s/e", own.clone(), 204),
        (post, format!("{own}Origin: https://evil.example\r\n"), 403),
        (post, format!("{own}Origin: null\r\n"), 403),
        (post, format!("{own}Sec-Fetch-Site: cross-site\r\n"), 403),
        (post, own.replace(&address, "evil.example"), 403),
        (post, format!("{own}{many}"), 431),
        (post, format!("{own}Authorization: Bearer x\r\n"), 401),
        (
            post,
            own.replace(
                "application/json",
                "application/json\r\nContent-Type: text/plain",
            ),
            415,
        ),
        (post, format!("{own}x: {}\r\n", "y".repeat(600_000)), 431),
        (post, own.replace("Length: 2", "Length: 99999999999"), 413),
        (post, format!("{own}Transfer-Encoding: chunked\r\n"), 400),
        ("POST //events/s/e", own.clone(), 404),
        ("POST /events/%ff/e", own.clone(), 404),
        ("POST /../events/s/e", own.clone(), 403),
    ] {
        let answered = raw(&address, start, &headers, b"{}").await?;
        let shown: String = headers.chars().skip(200).take(60).collect();
        assert_eq!(answered, status, "{start} {shown}");
    }
    // Guessing is slowed down; who has a token goes on.
    let mut statuses = Vec::new();
    for number in 0..40 {
        let wrong = format!("Bearer wrong-{number}");
        let headers = [JSON, ("authorization", wrong.as_str())];
        statuses.push(sender.send("/events/s/e", &headers, "{}").await?.status);
    }
    assert!(
        statuses.contains(&401) && statuses.contains(&429),
        "{statuses:?}"
    );
    sender.raise("/events/s/e", &json!({})).await?.expect(202)?;
    // Half a request keeps nobody out.
    let mut half = TcpStream::connect(&address).await?;
    half.write_all(b"POST /events/s/e HTTP/1.1\r\nHost: localhost\r\nContent-Le")
        .await?;
    sender.raise("/events/s/e", &json!({})).await?.expect(202)?;
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(60), half.read_to_end(&mut rest));
    closed.await.context("it is closed")??;
    cluster.finish().await
}
