//! The configuration for production, as it is shipped: three NATS nodes and Redis, with TLS and users of their own.

use anyhow::ensure;
use e2e::{Cluster, Leftovers, RawNats, Result, SOON, Sender, admin, eventually, wire};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn create(cluster: &Cluster, source: &str, handler: &str, config: Value) -> Result<String> {
    let hook = json!({ "source": source, "handler": handler, "config": config });
    let hook = cluster.admin().create_hook(&hook).await?;
    Ok(admin::id(&hook)?.to_owned())
}

async fn raise(cluster: &Cluster, source: &str, data: &Value) -> Result {
    cluster.publish(source, "event", data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_hookline_does_works_with_it() -> Result {
    let mut cluster = Cluster::builder()
        .production()
        .gateways(2)
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s")
        .dispatcher_env("HOOKLINE_RATE_LIMIT", "1000")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "3,0.5,1s")
        .start()
        .await?;
    let sender = Sender::new(&cluster.gateways[1], &["one"]).await?;
    let webhook = each_handler_fires(&cluster, &sender).await?;
    a_hook_is_paused_and_its_dead_letters_replayed(&cluster, &webhook).await?;
    what_dies_is_kept_and_many_hooks_fire(&cluster).await?;
    let base = format!("/event-hooks/{webhook}");
    cluster.admin().delete(&base).await?.expect(204)?;

    // The node that leads the events is killed, and comes back.
    let so_far = cluster.receiver.events("/custom").len();
    let leader = cluster.nats.kill_leader(wire::EVENTS).await?;
    eventually(SOON, "events are taken without it", async || {
        let answer = sender
            .raise("/events/one/event", &json!({ "n": 1 }))
            .await?;
        ensure!(answer.status == 202, "{answer:?}");
        Ok(())
    })
    .await?;
    cluster.receiver.wait_for("/custom", so_far + 1).await?;
    cluster.nats.start_node(leader)?;
    // So is Redis, which remembers.
    cluster.redis.kill();
    cluster.redis.start().await?;
    let so_far = cluster.receiver.events("/custom").len();
    raise(&cluster, "one", &json!({ "n": 1 })).await?;
    cluster.receiver.wait_for("/custom", so_far + 1).await?;
    cluster
        .rest_leaving(Leftovers { dead: 2, parked: 0 })
        .await?;
    let denied = cluster.redis.ask("ACL LOG").await?;
    ensure!(denied.ends_with("*0\r\n"), "Redis refused: {denied}");
    cluster
        .finish_leaving(Leftovers { dead: 2, parked: 0 })
        .await
}

/// Returns the id of a webhook.
async fn each_handler_fires(cluster: &Cluster, sender: &Sender) -> Result<String> {
    let receiver = cluster.receiver.url("");
    // Each handler, with a retry, a script of its own and a template.
    cluster.receiver.answer("/webhook", &[200, 503, 200]);
    let config = json!({ "url": format!("{receiver}/webhook"), "secret": "swordfish" });
    let webhook = create(cluster, "one", "webhook", config).await?;
    cluster.receiver.wait_for_ping("/webhook").await?;
    let config = json!({
        "url": format!("{receiver}/custom"), "method": "POST", "payload": { "text": "{{ n }}" },
        "headers": { "content-type": "application/json" },
    });
    create(cluster, "one", "webhook-custom", config).await?;
    create(cluster, "one", "log", json!({})).await?;
    let script = "return function(data) if data.n ~= 1 then error('n is ' .. data.n) end end";
    create(cluster, "one", "lambda", json!({ "functions": [script] })).await?;
    raise(cluster, "one", &json!({ "n": 1 })).await?;
    let injector = cluster.nats.client_as("injector").await?;
    let observer = cluster.nats.client_as("observer").await?;
    let mut watch = observer.subscribe("hookline.watch.>").await?;
    observer.flush().await?;
    let stored = injector
        .request(wire::event("one", "event"), "{\"n\":1}".into())
        .await?;
    ensure!(stored.payload.starts_with(b"{\"stream\""), "{stored:?}");
    sender
        .raise("/events/one/event", &json!({ "n": 1 }))
        .await?
        .expect(202)?;
    let seen = tokio::time::timeout(SOON, watch.next()).await?;
    ensure!(seen.is_some(), "the watch ended");
    cluster.receiver.wait_for("/webhook", 4).await?;
    let custom = cluster.receiver.wait_for("/custom", 3).await?;
    assert_eq!(custom[0].json["text"], "1");
    cluster.rest().await?;
    Ok(webhook)
}

async fn a_hook_is_paused_and_its_dead_letters_replayed(
    cluster: &Cluster,
    webhook: &str,
) -> Result {
    // Pause by 410, dead letter, replay; ping, test and the delivery log.
    let base = format!("/event-hooks/{webhook}");
    cluster.receiver.answer("/webhook", &[410]);
    raise(cluster, "one", &json!({ "n": 1 })).await?;
    cluster
        .rest_leaving(Leftovers { dead: 1, parked: 0 })
        .await?;
    let admin = cluster.admin();
    let hook = admin.get(&base).await?.expect(200)?;
    assert_eq!(hook["delivery"]["paused"], true, "{hook}");
    cluster.receiver.answer("/webhook", &[200]);
    let resumed = json!({ "delivery": { "paused": false } });
    admin.patch(&base, &resumed).await?.expect(200)?;
    let all = json!({ "all": true });
    let replayed = admin
        .post(&format!("{base}/dead/replay"), &all)
        .await?
        .expect(200)?;
    assert_eq!(replayed["replayed"], 1);
    cluster.receiver.wait_for("/webhook", 6).await?;
    admin.get(&format!("{base}/ping")).await?.expect(200)?;
    let tested = json!({ "data": { "n": 1 } });
    admin
        .post(&format!("{base}/test"), &tested)
        .await?
        .expect(200)?;
    eventually(SOON, "attempts are logged", async || {
        let log = admin.get(&format!("{base}/attempts")).await?.expect(200)?;
        ensure!(
            log["data"].as_array().is_some_and(|list| list.len() >= 4),
            "{log}"
        );
        Ok(())
    })
    .await?;
    admin.get(&format!("{base}/status")).await?.expect(200)?;
    Ok(())
}

async fn what_dies_is_kept_and_many_hooks_fire(cluster: &Cluster) -> Result {
    let receiver = cluster.receiver.url("");
    // A hook that many hear, one that dies, and one that is removed with what it left.
    raise(cluster, "one", &json!({ "n": 2 })).await?;
    cluster
        .rest_leaving(Leftovers { dead: 1, parked: 0 })
        .await?;
    cluster
        .nats
        .publish(wire::event("one", "event"), "no event")
        .await?;
    cluster
        .rest_leaving(Leftovers { dead: 2, parked: 0 })
        .await?;
    for index in 0..70 {
        let config = json!({ "url": format!("{receiver}/many/{index}") });
        let hook = json!({ "source": "many", "handler": "webhook", "config": config });
        cluster.admin().create_hook(&hook).await?;
    }
    raise(cluster, "many", &json!({})).await?;
    eventually(SOON, "all of many hooks have fired", async || {
        let fired = (0..70).filter(|index| {
            !cluster
                .receiver
                .events(&format!("/many/{index}"))
                .is_empty()
        });
        let fired = fired.count();
        ensure!(fired == 70, "{fired}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// What Redis answers the dispatchers' user.
async fn asked(cluster: &Cluster, command: &str) -> Result<String> {
    let password = cluster.secrets().redis_password("dispatcher");
    cluster.redis.ask_as("dispatcher", &password, command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_in_without_tls_and_a_password() -> Result {
    let cluster = Cluster::builder()
        .production()
        .nats_servers(1)
        .start()
        .await?;
    let mut plain = TcpStream::connect(("127.0.0.1", cluster.nats.port())).await?;
    plain.write_all(b"CONNECT {}\r\nPING\r\n").await?;
    let mut said = String::new();
    let _ = plain.read_to_string(&mut said).await;
    ensure!(
        said.contains("\"tls_required\":true") && !said.contains("PONG"),
        "{said}"
    );
    let mut wrong = cluster.secrets().clone();
    wrong.forget_passwords();
    let refused = RawNats::connect_securely(cluster.nats.port(), "operator", &wrong).await;
    let may = match refused {
        Ok(mut raw) => raw.may_publish("x", "y").await.unwrap_or(false),
        Err(_) => false,
    };
    ensure!(!may, "without its password");

    let mut plain = TcpStream::connect(("127.0.0.1", cluster.redis.port())).await?;
    plain.write_all(b"PING\r\n").await?;
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    ensure!(
        !said.starts_with(b"+"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    let no_user = cluster
        .redis
        .ask_as("default", "", "GET hookline:cluster")
        .await?;
    ensure!(
        no_user.contains("-WRONGPASS") || no_user.contains("-NOAUTH"),
        "{no_user}"
    );
    for command in [
        "FLUSHALL",
        "KEYS *",
        "SCAN 0",
        "CONFIG GET dir",
        "CONFIG SET dir /tmp",
        "SAVE",
        "SHUTDOWN",
        "ACL LIST",
        "MONITOR",
        "EVAL return 0",
        "FUNCTION LIST",
        "GET another",
        "SET another 1",
        "SUBSCRIBE x",
        "REPLICAOF localhost 1",
    ] {
        let answer = asked(&cluster, command).await?;
        ensure!(answer.contains("-NOPERM"), "{command}: {answer}");
    }
    ensure!(asked(&cluster, "GET hookline:cluster").await?.contains('$'));
    // The limit of storage is one that dispatchers see.
    let account = cluster.nats.jetstream().query_account().await?;
    ensure!(
        account.limits.max_storage.is_some_and(|most| most > 0),
        "{account:?}"
    );
    cluster.finish().await
}
