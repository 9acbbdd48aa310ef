//! Waiting deliveries that are attempted at once on request.

use anyhow::{Context as _, ensure};
use e2e::{Builder, Cluster, Leftovers, Result, SOON, eventually};
use serde_json::{Value, json};

fn builder() -> Builder {
    Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m,10m,10m,10m")
}

/// Creates a hook whose receiver answers 503, and leaves `events` deliveries waiting. Returns its path.
async fn waiting(cluster: &Cluster, events: u64) -> Result<String> {
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.receiver.answer("/hook", &[503]);
    for n in 0..events {
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }
    let parked = Leftovers {
        dead: 0,
        parked: events,
    };
    cluster.rest_leaving(parked).await?;
    Ok(format!("/event-hooks/{}", e2e::admin::id(&hook)?))
}

async fn retry(cluster: &Cluster, path: &str, body: Value) -> Result<Value> {
    let path = format!("{path}/deliveries/retry");
    cluster.admin().post(&path, &body).await?.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_delivery_or_all_are_due_now() -> Result {
    let never = "0,1,5s";
    let cluster = builder()
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", never)
        .start()
        .await?;
    let path = waiting(&cluster, 5).await?;
    let list = format!("{path}/deliveries");
    let listed = cluster.admin().get(&list).await?.expect(200)?;
    let id = &listed["data"][2]["id"];
    let selected = retry(&cluster, &path, json!({ "all": true, "dry_run": true })).await?;
    assert_eq!(selected, json!({ "selected": 5 }));
    cluster.receiver.answer("/hook", &[200]);
    let retried = retry(&cluster, &path, json!({ "id": id })).await?;
    assert_eq!(retried, json!({ "retried": 1 }));
    cluster.receiver.wait_for("/hook", 6).await?;
    let parked = Leftovers { dead: 0, parked: 4 };
    cluster.rest_leaving(parked).await?;
    let mine = listed["data"][2]["id"].as_str().unwrap_or_default();
    let last = cluster.receiver.events("/hook").pop();
    assert_eq!(
        last.map(|last| last.webhook_id().to_owned()).as_deref(),
        Some(mine)
    );

    let admin = cluster.admin();
    let route = format!("{path}/deliveries/retry");
    for body in [
        json!({}),
        json!({ "sicne": 5 }),
        json!({ "all": true, "id": id }),
        json!({ "id": "x" }),
    ] {
        admin.post(&route, &body).await?.expect(400)?;
    }
    let gone = json!({ "id": id });
    admin.post(&route, &gone).await?.expect(404)?;
    let none = retry(&cluster, &path, json!({ "event": "services" })).await?;
    assert_eq!(none, json!({ "retried": 0 }));
    let paused = json!({ "delivery": { "paused": true } });
    admin.patch(&path, &paused).await?.expect(200)?;
    let refused = admin
        .post(&route, &json!({ "all": true }))
        .await?
        .expect(400)?;
    assert!(
        refused["message"].to_string().contains("paused"),
        "{refused}"
    );
    let goes_on = json!({ "delivery": { "paused": false } });
    admin.patch(&path, &goes_on).await?.expect(200)?;

    let retried = retry(&cluster, &path, json!({ "reason": "503" })).await?;
    assert_eq!(retried, json!({ "retried": 4 }));
    cluster.receiver.wait_for("/hook", 10).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_circuit_is_probed_once_by_each_dispatcher_and_closes() -> Result {
    let cluster = builder()
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "1,1,5m")
        .start()
        .await?;
    let path = waiting(&cluster, 30).await?;
    let before = cluster.receiver.events("/hook").len();
    // Still sick: some probe, all go on waiting.
    let retried = retry(&cluster, &path, json!({ "all": true })).await?;
    assert_eq!(retried, json!({ "retried": 30 }));
    eventually(SOON, "it is probed", async || {
        ensure!(cluster.receiver.events("/hook").len() > before);
        Ok(())
    })
    .await?;
    let parked = Leftovers {
        dead: 0,
        parked: 30,
    };
    let list = format!("{path}/deliveries");
    eventually(SOON, "all wait for the circuit", async || {
        let listed = cluster.admin().get(&list).await?.expect(200)?;
        let is_later = |one: &Value| {
            let time = |name: &str| one[name].as_f64().unwrap_or_default();
            time("due_at") > time("stored_at") + 20.0
        };
        let later = listed["data"].as_array().context("a list")?;
        let later = later.iter().filter(|one| is_later(one)).count();
        ensure!(later == 30, "{later} of 30");
        Ok(())
    })
    .await?;
    cluster.rest_leaving(parked).await?;
    let probes = cluster.receiver.events("/hook").len() - before;
    assert!((1..=2).contains(&probes), "{probes} probes");
    // Well again, all are made.
    cluster.receiver.answer("/hook", &[200]);
    let retried = retry(&cluster, &path, json!({ "all": true })).await?;
    assert_eq!(retried, json!({ "retried": 30 }));
    cluster
        .receiver
        .wait_for("/hook", before + probes + 30)
        .await?;
    cluster.finish().await
}
