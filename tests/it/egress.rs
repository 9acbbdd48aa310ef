//! The egress policy: which addresses hooks may reach.

use e2e::nats::reason;
use e2e::{Cluster, Leftovers, Result, SOON, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_address_is_tried_again_as_after_a_404() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({ "url": "http://10.0.0.1/", "method": "POST", "body": "x" });
    let hook = cluster.admin().hook_consumers("webhook-custom", config);
    let path = format!("/event-hooks/{}/deliveries", e2e::admin::id(&hook.await?)?);
    cluster.admin().create_consumer("Ada").await?;
    let parked = Leftovers { dead: 0, parked: 1 };
    cluster.rest_leaving(parked).await?;
    let waiting = cluster.admin().get(&path).await?.expect(200)?;
    let waiting = &waiting["data"][0];
    assert_eq!(waiting["attempt"], 2);
    let reason = waiting["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("10.0.0.1 is not a public address"),
        "{reason}"
    );
    let time = |name: &str| waiting[name].as_f64().unwrap_or_default();
    let wait = time("due_at") - time("stored_at");
    assert!((45.0..=75.0).contains(&wait), "{wait}");
    cluster.finish_leaving(parked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loopback_address_is_refused_unless_allowed() -> Result {
    let mut cluster = Cluster::builder()
        .dispatchers(2)
        // Some addresses are allowed, but not loopback.
        .dispatcher_env("HOOKLINE_EGRESS_ALLOW", "192.0.2.0/24")
        .start()
        .await?;
    let port = cluster.receiver.port();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0.0.0.0",
        "127.1",
    ];
    let mut hooks = Vec::new();
    for host in hosts {
        let url = format!("http://{host}:{port}/hook");
        let config = json!({ "url": url, "method": "POST", "body": "x" });
        let mut hook = e2e::admin::hook("crud", "consumers", "webhook-custom", config);
        hook["delivery"] = json!({ "retry": [] });
        hooks.push(cluster.admin().create_hook(&hook).await?);
    }

    cluster.admin().create_consumer("Ada").await?;

    let dead = cluster.nats.dead_letters(hosts.len()).await?;
    for letter in &dead {
        let reason = reason(letter);
        assert!(
            reason.contains("HOOKLINE_EGRESS_ALLOW") || reason.contains("not allowed"),
            "{reason}"
        );
    }
    // Tests are subject to the same policy.
    let path = format!("/event-hooks/{}/test", e2e::admin::id(&hooks[0])?);
    let answer = cluster.admin().post(&path, &json!({})).await?.expect(200)?;
    assert_eq!(answer["result"]["delivered"], false);
    let error = answer["result"]["error"].to_string();
    assert!(error.contains("HOOKLINE_EGRESS_ALLOW"), "{error}");

    assert_eq!(cluster.receiver.connections(), 0, "nobody connected");

    // Once the address is allowed, the same test connects.
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.stop().await?;
        dispatcher.set("HOOKLINE_EGRESS_ALLOW", "127.0.0.0/8");
    }
    cluster.dispatchers[0].replace_settings().await?;
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.start()?;
        dispatcher.ready().await?;
    }
    let answer = eventually(SOON, "the test connects", async || {
        cluster.admin().post(&path, &json!({})).await?.expect(200)
    })
    .await?;
    assert_eq!(answer["result"]["status"], 200);
    assert_eq!(cluster.receiver.events("/hook").len(), 1);
    let leftovers = Leftovers {
        dead: hosts.len() as u64,
        parked: 0,
    };
    cluster.finish_leaving(leftovers).await
}
