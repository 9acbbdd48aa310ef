//! What operators see of a hook that fails.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use e2e::logs::Line;
use e2e::{Cluster, Leftovers, Result, SOON, eventually};
use serde_json::{Value, json};

const FAILED: &str = "an attempt failed, and is made again";

fn lines(cluster: &Cluster, text: &str) -> Vec<Line> {
    let lines = cluster.dispatchers.iter().flat_map(|one| one.log_lines());
    lines
        .filter(|line| line.json().to_string().contains(text))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_failure_is_logged_with_host_status_and_next_try() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10s,10s")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "0,1,5s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook?token=s3cret").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.receiver.answer("/hook", &[503]);
    cluster.admin().create_consumer("one").await?;
    eventually(SOON, "the failure is logged", async || {
        ensure!(lines(&cluster, FAILED).len() == 1);
        Ok(())
    })
    .await?;
    let line = lines(&cluster, FAILED).remove(0);
    assert_eq!(line.level(), "WARN");
    assert_eq!(*line.field("hook"), hook["id"]);
    assert_eq!(*line.field("host"), json!("127.0.0.1"));
    assert_eq!(*line.field("status"), json!(503));
    let next = line.field("next_try_s").as_f64().unwrap_or_default();
    assert!((8.0..=12.0).contains(&next), "{next}");
    assert!(!line.json().to_string().contains("s3cret"));
    // The others are summed up after a minute.
    for n in 0..20 {
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }
    cluster.receiver.wait_for("/hook", 21).await?;
    assert_eq!(lines(&cluster, FAILED).len(), 1);
    cluster.receiver.answer("/hook", &[200]);
    cluster.receiver.wait_for("/hook", 42).await?;
    eventually(SOON, "its end is logged", async || {
        let ended = lines(&cluster, "the hook works again");
        ensure!(
            ended.len() == 1 && *ended[0].field("failures") == json!(21),
            "{ended:?}"
        );
        Ok(())
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_says_why_deliveries_wait_and_until_when() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "10m,10m")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "1,1,5m")
        .start()
        .await?;
    let admin = cluster.admin();
    let hook = cluster.webhook("/hook").await?;
    let path = format!("/event-hooks/{}", e2e::admin::id(&hook)?);
    let status = async || {
        let status = admin.get(&format!("{path}/status")).await?.expect(200)?;
        Result::Ok(status)
    };
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    let well = status().await?;
    assert_eq!(well["state"], "working");
    assert_eq!(
        well["circuit"],
        json!({ "state": "closed", "probed_at": null })
    );
    assert_eq!(well["waiting"]["count"], 0);

    cluster.receiver.answer("/hook", &[503]);
    for n in 0..5 {
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }
    let parked = Leftovers { dead: 0, parked: 5 };
    cluster.rest_leaving(parked).await?;
    let sick = status().await?;
    assert_eq!(sick["state"], "failing", "{sick}");
    assert_eq!(sick["circuit"]["state"], "open");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let left = sick["circuit"]["probed_at"].as_f64().context("a time")? - now;
    assert!((200.0..=301.0).contains(&left), "{left}");
    assert_eq!(sick["waiting"]["count"], 5);
    let reasons = sick["waiting"]["reasons"].as_object().context("reasons")?;
    let counted: u64 = reasons.values().filter_map(Value::as_u64).sum();
    assert_eq!(counted, 5, "{reasons:?}");
    assert!(
        reasons.contains_key("the receiver answered 503"),
        "{reasons:?}"
    );
    assert!(
        sick["waiting"]["next_try_at"]
            .as_f64()
            .is_some_and(|at| at > now)
    );

    let pause = json!({ "delivery": { "paused": true, "paused_reason": "a holiday" } });
    admin.patch(&path, &pause).await?.expect(200)?;
    let paused = status().await?;
    assert_eq!(
        (&paused["state"], &paused["paused_reason"]),
        (&json!("paused"), &json!("a holiday"))
    );
    admin
        .get(&format!("{path}/status?x=1"))
        .await?
        .expect(400)?;
    let nobody = "/event-hooks/c57340ab-9fed-40fd-bb7e-1cef8d37c2df/status";
    admin.get(nobody).await?.expect(404)?;
    cluster.finish_leaving(parked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_that_was_made_is_answered_with_its_result() -> Result {
    let cluster = Cluster::single().await?;
    let admin = cluster.admin();
    let refused = admin.webhook("http://127.0.0.1:1/").await?;
    let raises = json!({ "functions": ["return function() error('raised') end"] });
    let raises = admin.hook_consumers("lambda", raises).await?;
    let declines = json!({ "functions": ["return function() return false end"] });
    let declines = admin.hook_consumers("lambda", declines).await?;
    for (hook, says) in [
        (&refused, "cannot connect"),
        (&raises, "raised"),
        (&declines, "returned false"),
    ] {
        let path = format!("/event-hooks/{}/test", e2e::admin::id(hook)?);
        let answer = admin.post(&path, &json!({ "n": 1 })).await?.expect(200)?;
        assert_eq!(answer["data"]["n"], 1);
        assert_eq!(answer["result"]["delivered"], false);
        let error = answer["result"]["error"].as_str().unwrap_or_default();
        assert!(error.contains(says), "{error}");
        let list = admin.post(&path, &json!([])).await?.expect(400)?;
        assert!(
            list["message"].to_string().contains("expected an object"),
            "{list}"
        );
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatchers_on_one_host_have_names_of_their_own() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_NODE", "")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    for n in 0..200 {
        let data = json!({ "n": n });
        cluster.publish("crud", "consumers", &data).await?;
    }
    cluster.receiver.wait_for("/hook", 200).await?;
    let path = format!("/event-hooks/{}/attempts?size=1000", e2e::admin::id(&hook)?);
    let ports: BTreeSet<_> = cluster
        .dispatchers
        .iter()
        .filter_map(|one| one.status_address().rsplit(':').next())
        .collect();
    eventually(SOON, "both are named", async || {
        let logged = cluster.admin().get(&path).await?.expect(200)?;
        let nodes: BTreeSet<_> = logged["data"]
            .as_array()
            .context("a list")?
            .iter()
            .filter_map(|attempt| attempt["node"].as_str()?.rsplit('-').next())
            .collect();
        ensure!(nodes == ports, "{nodes:?}, not {ports:?}");
        Ok(())
    })
    .await?;
    cluster.finish().await
}
