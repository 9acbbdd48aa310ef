//! `/scaling`: how many dispatchers are wanted.

use anyhow::ensure;
use e2e::{Cluster, Leftovers, Result, SOON, eventually};
use serde_json::{Value, json};

async fn scaling(cluster: &Cluster) -> Result<Value> {
    let address = cluster.gateways[0].status_address();
    let url = format!("http://{address}/scaling");
    let answer = e2e::admin::http_client()?.get(url).send().await?;
    Ok(answer.error_for_status()?.json().await?)
}

async fn until(cluster: &Cluster, what: &str, fields: &[(&str, u64)]) -> Result<Value> {
    eventually(SOON, what, async || {
        let answer = scaling(cluster).await?;
        for (field, expected) in fields {
            ensure!(answer[field] == json!(expected), "{field}: {answer}");
        }
        Ok(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wanted_workers_follow_what_waits_and_not_what_is_parked() -> Result {
    let mut cluster = Cluster::builder()
        .gateway_env("HOOKLINE_WORKER_MESSAGES", "10")
        .start()
        .await?;
    cluster.webhook("/hook").await?;
    let paused = json!({"source": "crud", "event": "consumers", "handler": "log",
        "delivery": {"paused": true}});
    cluster.admin().create_hook(&paused).await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    let parked = |parked| Leftovers { dead: 0, parked };
    cluster.rest_leaving(parked(1)).await?;
    let idle = [
        ("wanted_workers", 0),
        ("workers", 1),
        ("pending", 0),
        ("permits", 768),
    ];
    until(&cluster, "an idle cluster wants nobody", &idle).await?;

    cluster.dispatchers[0].stop().await?;
    for _ in 0..25 {
        cluster.publish("crud", "consumers", &json!({})).await?;
    }
    let wanted = [("wanted_workers", 3), ("workers", 0), ("pending", 25)];
    let answer = until(&cluster, "25 events want three workers", &wanted).await?;
    assert_eq!(answer["consumers"]["dispatchers"]["pending"], 25);
    assert_eq!(answer["consumers"]["retries"]["pending"], 0);
    assert_eq!(
        cluster.gateways[0].metric("hookline_workers", &[]).await?,
        0.0
    );

    cluster.dispatchers[0].start()?;
    cluster.add_dispatcher()?.start()?;
    cluster.ready().await?;
    let done = [("wanted_workers", 0), ("workers", 2), ("permits", 1_536)];
    until(&cluster, "what is done wants nobody", &done).await?;
    assert_eq!(cluster.receiver.events("/hook").len(), 26);
    cluster.finish_leaving(parked(26)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wanted_on_a_guess() -> Result {
    let mut cluster = Cluster::single().await?;
    until(&cluster, "the gateway answers", &[("workers", 1)]).await?;
    cluster.nats.kill();
    eventually(4 * SOON, "the gateway no longer answers", async || {
        let status = cluster.gateways[0].status_of("/scaling").await?;
        ensure!(status == 503, "{status}");
        Ok(())
    })
    .await?;
    cluster.nats.start().await?;
    until(&cluster, "the gateway answers again", &[("workers", 1)]).await?;
    cluster.finish().await
}
