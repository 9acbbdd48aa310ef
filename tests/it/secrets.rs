//! Secrets stay out of logs, metrics, events and dead letters.

use e2e::{Cluster, Result, SOON, eventually};
use futures::StreamExt as _;
use serde_json::json;

/// Parts of hooks, which no event may contain, and of events: neither may stand in a log.
const MARKERS: [(&str, &str); 6] = [
    ("a secret", "marker1secret"),
    ("a header's value", "marker2token"),
    ("a URL's query", "marker3query"),
    ("a URL's password", "marker4password"),
    ("an event's data", "marker5data"),
    ("a receiver's answer", "marker6answer"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_reach_no_event_and_neither_they_nor_bodies_reach_logs_or_metrics() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .gateway_env("HOOKLINE_LOG", "debug")
        .dispatcher_env("HOOKLINE_LOG", "debug")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .start()
        .await?;
    let receiver = &cluster.receiver;
    let admin = cluster.admin();
    let events = watch(&cluster).await?;
    // A path for each outcome of a delivery.
    let ends = [("/ok", 200), ("/failing", 500), ("/gone", 410)];
    for (path, code) in ends {
        receiver.answer(path, &[code]);
        receiver.answer_body(path, "marker6answer", ("x-answer", "marker6answer"));
    }
    let nobody = format!("http://127.0.0.1:{}/none", e2e::ports::free()?);
    let mut hooks = Vec::new();
    let urls = ends.map(|(path, _)| receiver.url(path));
    for url in urls.iter().chain([&nobody]) {
        let url = url.replace("http://", "http://user:marker4password@") + "?key=marker3query";
        let config = json!({
            "url": url, "secret": "marker1secret",
            "headers": { "authorization": "Bearer marker2token" },
        });
        let hook = admin.hook_consumers("webhook", config.clone()).await?;
        let id = e2e::admin::id(&hook)?;
        hooks.push(id.to_owned());
        let path = format!("/event-hooks/{id}");
        let mut custom = config;
        custom["method"] = json!("POST");
        custom["body"] = json!("{{ entity.username }} marker1secret");
        admin.hook_consumers("webhook-custom", custom).await?;
        admin.get(&format!("{path}/ping")).await?;
        let test = json!({ "entity": { "username": "marker5data" } });
        admin.post(&format!("{path}/test"), &test).await?;
    }
    // In a hook that is refused.
    let wrong = json!({
        "source": "crud", "handler": "webhook", "snooze": "marker1secret",
        "config": { "url": "marker3query", "secret": "marker1secret" },
    });
    admin.post("/event-hooks", &wrong).await?.expect(400)?;

    admin.create_consumer("marker5data").await?;
    let taken = json!({ "username": "marker5data" });
    admin.post("/consumers", &taken).await?.expect(409)?;
    let subject = e2e::wire::event("crud", "consumers");
    cluster
        .nats
        .publish(subject, "{\"broken\": marker5data")
        .await?;

    // Two hooks each at /gone, /failing, which has one retry, and the closed port; and a malformed event.
    eventually(SOON, "the failing ones are given up on", async || {
        let dead = cluster.nats.count(e2e::wire::DEAD).await?;
        anyhow::ensure!(dead >= 7, "{dead} dead letters");
        Ok(())
    })
    .await?;

    markers_were_sent(&cluster);
    nothing_is_stored(&cluster, events).await?;
    // A dead letter is stored before it is logged.
    eventually(SOON, "the logs name each hook that failed", async || {
        let logs = cluster.dispatchers.iter().map(|d| d.process().log());
        let logs: String = logs.collect();
        let missing = hooks[1..].iter().find(|hook| !logs.contains(*hook));
        anyhow::ensure!(missing.is_none(), "{missing:?} is not in the logs");
        Ok(())
    })
    .await?;
    let services = cluster.gateways.iter().chain(&cluster.dispatchers);
    for service in services {
        let name = service.process().name();
        let log = service.process().log();
        assert!(log.contains("DEBUG"), "{name} logs");
        let metrics = service.metrics().await?;
        assert!(metrics.contains("hookline_"), "{name} counts");
        for (what, marker) in MARKERS {
            let line = log.lines().find(|line| line.contains(marker));
            assert_eq!(line, None, "{name} logged {what}");
            assert!(!metrics.contains(marker), "{name} counts {what}");
        }
    }
    cluster.finish_unchecked().await
}

async fn watch(cluster: &Cluster) -> Result<async_nats::Subscriber> {
    let observer = cluster.nats.client_as("observer").await?;
    let events = observer.subscribe("hookline.watch.>").await?;
    observer.flush().await?;
    Ok(events)
}

/// No event, dead letter or attempt has a part of a hook.
async fn nothing_is_stored(cluster: &Cluster, mut events: async_nats::Subscriber) -> Result {
    let mut texts = Vec::new();
    for stream in [e2e::wire::DEAD, e2e::wire::ATTEMPTS] {
        let stored = cluster.nats.messages(stream).await?;
        texts.extend(stored.into_iter().map(|message| message.payload));
    }
    let seen = tokio::time::timeout(SOON, async {
        while let Some(event) = events.next().await {
            texts.push(event.payload);
            if event.subject.contains("crud.consumers") {
                break;
            }
        }
    });
    seen.await?;
    let texts = texts.iter().map(|text| String::from_utf8_lossy(text));
    let texts: Vec<_> = texts.collect();
    // Of each hook two events about it, and the pings of the four that are pinged; all of the dead letters.
    assert!(texts.len() > 8 + 8 + 4 + 7, "{}", texts.len());
    for (what, marker) in &MARKERS[..4] {
        let text = texts.iter().find(|text| text.contains(marker));
        assert_eq!(text, None, "{what}");
    }
    Ok(())
}

/// The positive control.
fn markers_were_sent(cluster: &Cluster) {
    let sent = cluster.receiver.events("/ok");
    let has = |found: fn(&e2e::Request) -> bool| sent.iter().any(found);
    assert!(has(|sent| sent.text().contains("marker1secret")));
    assert!(has(|sent| sent
        .header("authorization")
        .contains("marker2token")));
    assert!(has(|sent| sent.query.as_deref() == Some("key=marker3query")));
    assert!(has(|sent| sent.json["entity"]["username"] == "marker5data"));
}
