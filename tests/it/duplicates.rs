//! Repeats, redeliveries and takeovers cause no needless second delivery.

use anyhow::ensure;
use async_nats::HeaderMap;
use e2e::{Builder, Cluster, Leftovers, Proxy, Result, SOON, eventually, wire};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_id_published_again_is_not_delivered_again() -> Result {
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    cluster.webhook("/hook").await?;
    let subject = wire::event("crud", "consumers");
    let body = json!({ "n": 1 }).to_string();
    let publish = async || {
        cluster
            .nats
            .publish_with_id(&subject, "the-one-id", &body)
            .await
    };
    assert!(!publish().await?, "the first is no duplicate");
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.rest().await?;

    // JetStream drops repeats while it remembers the id; after that it stores them.
    for _ in 0..3 {
        eventually(SOON, "JetStream forgets the id", async || {
            ensure!(!publish().await?, "it still takes it for a duplicate");
            Ok(())
        })
        .await?;
    }
    // Once a later event is delivered, the repeat has been settled too.
    cluster
        .publish("crud", "consumers", &json!({ "n": 2 }))
        .await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    cluster.rest().await?;
    let events = cluster.receiver.events("/hook");
    let markers: Vec<_> = events.iter().map(|event| event.json["n"].clone()).collect();
    assert_eq!(markers, [1, 2]);

    // In another workspace the same id is another event. JetStream, which knows no workspaces, has to
    // forget it first.
    let elsewhere = wire::event_in("elsewhere", "crud", "consumers");
    eventually(SOON, "JetStream forgets the id", async || {
        let again = cluster
            .nats
            .publish_with_id(&elsewhere, "the-one-id", &body);
        ensure!(!again.await?, "it still takes it for a duplicate");
        Ok(())
    })
    .await?;
    cluster.receiver.wait_for("/hook", 3).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_batch_is_delivered_once_each_or_not_at_all() -> Result {
    in_batches(Cluster::builder()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_published_to_a_cluster_is_delivered_once_each_or_not_at_all() -> Result {
    in_batches(Cluster::builder().nats_servers(3)).await
}

async fn in_batches(builder: Builder) -> Result {
    let name = "HOOKLINE_EVENT_BATCHES";
    let builder = builder
        .gateway_env(name, "true")
        .dispatcher_env(name, "true");
    let cluster = builder.start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    // One attempt fails and is retried.
    cluster.receiver.answer("/hook", &[200, 500, 200]);
    let client = cluster.nats.client();
    let batch = async |name: &str, ids: &[&str]| -> Result<Value> {
        let subject = wire::event("crud", "consumers");
        for (index, id) in ids.iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", *id);
            headers.insert("Nats-Batch-Id", name);
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            // A malformed event does not affect the rest of its batch.
            let body = match *id {
                "bad" => "no event".to_owned(),
                id => json!({ "id": id }).to_string(),
            };
            if index + 1 < ids.len() {
                let sent = client.publish_with_headers(subject.clone(), headers, body.into());
                sent.await?;
            } else {
                headers.insert("Nats-Batch-Commit", "1");
                let sent = client.request_with_headers(subject.clone(), headers, body.into());
                return Ok(serde_json::from_slice(&sent.await?.payload)?);
            }
        }
        anyhow::bail!("a batch has a message");
    };
    let stored = batch("first", &["a", "b", "bad", "c", "d"]).await?;
    assert_eq!(stored["count"], 5, "{stored}");
    // An id is not twice in a batch.
    let refused = batch("second", &["e", "f", "e"]).await?;
    assert_eq!(refused["error"]["err_code"], 10_201, "{refused}");
    let stored = batch("third", &["e", "f"]).await?;
    assert_eq!(stored["count"], 2, "{stored}");

    cluster.receiver.wait_for("/hook", 7).await?;
    cluster
        .rest_leaving(Leftovers { dead: 1, parked: 0 })
        .await?;
    let events = cluster.receiver.events("/hook");
    let mut ids: Vec<_> = events
        .iter()
        .map(|event| event.json["id"].as_str().unwrap_or_default())
        .collect();
    ids.sort_unstable();
    // One event was attempted twice.
    assert_eq!(ids.len(), 7, "{ids:?}");
    ids.dedup();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
    cluster
        .finish_leaving(Leftovers { dead: 1, parked: 0 })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_refused_where_they_are_not_allowed() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_EVENT_BATCHES", "false")
        .dispatcher_env("HOOKLINE_EVENT_BATCHES", "false")
        .start()
        .await?;
    let injector = cluster.nats.client_as("injector").await?;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Batch-Id", "one");
    headers.insert("Nats-Batch-Sequence", "1");
    let subject = wire::event("crud", "consumers");
    let refused = injector
        .request_with_headers(subject, headers, "{}".into())
        .await?;
    let refused: Value = serde_json::from_slice(&refused.payload)?;
    assert_eq!(refused["error"]["err_code"], 10_174, "{refused}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_event_does_not_reset_a_delivery_that_waits_for_a_retry() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "6s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    // Held until the hook is paused, so that no retry comes before that.
    let hold = cluster.receiver.hold("/hook", 1);
    let subject = wire::event("crud", "consumers");
    let publish = async || cluster.nats.publish_with_id(&subject, "id", "{}").await;
    assert!(!publish().await?);
    cluster.receiver.wait_for("/hook", 1).await?;

    // Deliveries of a paused hook are parked without an attempt.
    let path = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    let pause = async |paused: bool| {
        let change = json!({ "delivery": { "paused": paused } });
        cluster.admin().patch(&path, &change).await?.expect(200)
    };
    pause(true).await?;
    hold.release(500);
    eventually(SOON, "JetStream forgets the id", async || {
        ensure!(!publish().await?, "it still takes it for a duplicate");
        Ok(())
    })
    .await?;
    cluster
        .rest_leaving(Leftovers { dead: 0, parked: 1 })
        .await?;
    pause(false).await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 2);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_whose_claims_were_taken_over_settles_nothing() -> Result {
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_LEASE", "2s")
        .dispatcher_env("HOOKLINE_ACK_WAIT", "3s")
        .start()
        .await?;
    // The late answers, which would deliver, park and bury if they counted.
    let late = [("/delivered", 200), ("/parked", 500), ("/buried", 410)];
    let mut hooks = Vec::new();
    for (path, _) in late {
        let hook = cluster.webhook(path).await?;
        hooks.push(e2e::admin::id(&hook)?.to_owned());
        cluster.receiver.wait_for_ping(path).await?;
    }
    cluster.rest().await?;
    let holds = late.map(|(path, code)| (cluster.receiver.hold(path, 1), code));

    cluster
        .publish("crud", "consumers", &json!({ "n": 1 }))
        .await?;
    for (path, _) in late {
        cluster.receiver.wait_for(path, 1).await?;
    }
    cluster.dispatchers[0].process().freeze()?;
    let second = cluster.add_dispatcher()?;
    second.start()?;
    second.ready().await?;
    for (path, _) in late {
        cluster.receiver.wait_for(path, 2).await?;
    }
    cluster.rest().await?;

    // The first dispatcher wakes up, gets its answers, and ends once it has processed them.
    for (hold, code) in holds {
        hold.release(code);
    }
    cluster.dispatchers[0].process().thaw()?;
    cluster.dispatchers[0].stop().await?;

    for (path, _) in late {
        cluster.control(path).await?;
    }
    for (path, late) in late {
        let events = cluster.receiver.events(path);
        assert_eq!(events.len(), 2, "{path}");
        assert_eq!(events[0].webhook_id(), events[1].webhook_id(), "{path}");
        assert_eq!(events[0].answered, Some(late), "{path}");
        assert_eq!(events[1].answered, Some(200), "{path}");
    }
    let buried = format!("/event-hooks/{}", hooks[2]);
    let paused = async || {
        let hook = cluster.admin().get(&buried).await?.expect(200)?;
        anyhow::Ok(hook["delivery"]["paused"] == true)
    };
    assert!(!paused().await?, "a late 410 pauses nobody");

    // An answer in time counts.
    cluster.receiver.answer("/buried", &[410]);
    let data = json!({ "n": 2 });
    cluster.publish("crud", "consumers", &data).await?;
    eventually(SOON, "the hook is paused", async || {
        ensure!(paused().await?, "it is not");
        Ok(())
    })
    .await?;
    let leftovers = Leftovers { dead: 1, parked: 0 };
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_frozen_past_its_lease_makes_no_attempt() -> Result {
    let proxy = Proxy::start().await?;
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_LEASE", "2s")
        .dispatcher_env("HOOKLINE_ACK_WAIT", "3s")
        .prepare()
        .await?;
    proxy.lead_to(cluster.redis.port());
    let redis = format!("redis://{}", proxy.address());
    cluster.dispatchers[0].set("HOOKLINE_REDIS_URL", &redis);
    cluster.start().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;

    // The dispatcher freezes while its claim is on the way to Redis.
    proxy.cut();
    cluster
        .publish("crud", "consumers", &json!({ "n": 1 }))
        .await?;
    eventually(SOON, "the dispatcher asks Redis", async || {
        ensure!(proxy.held_back() > 0, "it has not asked");
        Ok(())
    })
    .await?;
    cluster.dispatchers[0].process().freeze()?;
    proxy.mend();
    let second = cluster.add_dispatcher()?;
    second.start()?;
    second.ready().await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.rest().await?;

    cluster.dispatchers[0].process().thaw()?;
    cluster.dispatchers[0].stop().await?;
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 1);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_killed_during_an_attempt_loses_nothing() -> Result {
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_LEASE", "2s")
        .dispatcher_env("HOOKLINE_ACK_WAIT", "3s")
        .start()
        .await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let hold = cluster.receiver.hold("/hook", 5);
    for n in 0..5 {
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }
    cluster.receiver.wait_for("/hook", 5).await?;
    cluster.dispatchers[0].process_mut().kill();
    hold.release(200);

    let second = cluster.add_dispatcher()?;
    second.start()?;
    second.ready().await?;
    let events = cluster.receiver.wait_for("/hook", 10).await?;
    let mut markers: Vec<_> = events[5..].iter().map(|e| e.json["n"].as_u64()).collect();
    markers.sort_unstable();
    assert_eq!(markers, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
    cluster.control("/hook").await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 10);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_redelivered_for_one_hook_is_not_delivered_again_to_the_others() -> Result {
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_LEASE", "2s")
        .dispatcher_env("HOOKLINE_ACK_WAIT", "3s")
        .start()
        .await?;
    for path in ["/quick", "/slow"] {
        cluster.webhook(path).await?;
        cluster.receiver.wait_for_ping(path).await?;
    }
    cluster.rest().await?;
    let hold = cluster.receiver.hold("/slow", 5);
    for n in 0..5 {
        // Without an id, so that they are identified by their place in the stream.
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }
    cluster.receiver.wait_for("/quick", 5).await?;
    cluster.receiver.wait_for("/slow", 5).await?;
    let done = [("outcome", "delivered"), ("handler", "webhook")];
    eventually(SOON, "the quick ones are settled", async || {
        let count = cluster.dispatchers_metric("hookline_deliveries_total", &done);
        // Two of them are pings.
        ensure!(count.await? >= 7.0);
        Ok(())
    })
    .await?;
    cluster.dispatchers[0].process_mut().kill();
    hold.release(200);

    let second = cluster.add_dispatcher()?;
    second.start()?;
    second.ready().await?;
    cluster.receiver.wait_for("/slow", 10).await?;
    cluster.control("/quick").await?;
    assert_eq!(cluster.receiver.events("/quick").len(), 5);
    // A delivered one costs a bit in a bitmap, not a key.
    let keys = cluster.redis.ask("KEYS hookline:{*}:d:*").await?;
    assert_eq!(keys.matches(":d:").count(), 2, "the pings have ids: {keys}");
    cluster.finish().await
}
