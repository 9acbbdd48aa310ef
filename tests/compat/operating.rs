//! The pages whose commands need the NATS CLI; and a backup under load, restored into an empty NATS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Leftovers, Result, SOON, Sender, admin, docs, eventually, wire};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::nats_cli;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_that_needs_the_nats_cli_works() -> Result {
    let cli = nats_cli()?;
    let folder = cli.parent().context("its folder")?;
    for page in ["concepts.md", "operating.md"] {
        let mut blocks = docs::blocks(page, "sh")?;
        ensure!(blocks.iter().any(|block| docs::uses_nats(block)), "{page}");
        // It never ends, and docs/nats-cli.md has it as well.
        blocks.retain(|block| !block.contains("nats sub"));
        let cluster = Cluster::builder()
            .dispatchers(2)
            .dispatcher_env("HOOKLINE_EGRESS_ALLOW", "127.0.0.0/8,::1/128")
            .start()
            .await?;
        docs::run(page, &blocks, &cluster, Some(folder)).await?;
        cluster.finish_unchecked().await?;
    }
    Ok(())
}

/// Raises events until it is told to stop. Returns the numbers of those that were taken.
fn load(sender: Sender, stop: Arc<AtomicBool>) -> JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let mut taken = Vec::new();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let data = json!({ "n": number });
            let answer = sender.raise("/events/load/e", &data).await;
            if answer.is_ok_and(|answer| answer.status == 202) {
                taken.push(number);
            }
        }
        taken
    })
}

/// The documented command behind a heading.
fn documented(part: &str) -> Result<String> {
    let blocks = [
        docs::blocks("operating.md", "sh")?,
        docs::blocks("operating.md", "sh no-run")?,
    ];
    let mut blocks = blocks.into_iter().flatten();
    blocks
        .find(|block| block.contains(part))
        .with_context(|| part.to_owned())
}

/// A hook that works, one with a delivery that waits, and one with a dead letter; returns their ids.
async fn one_waits_and_one_dies(cluster: &Cluster) -> Result<Vec<String>> {
    let receiver = cluster.receiver.url("");
    let mut hooks = Vec::new();
    for (source, path) in [("load", "/load"), ("waits", "/waits"), ("dies", "/dies")] {
        let config =
            json!({ "url": format!("{receiver}{path}"), "method": "POST", "body": "{{ n }}" });
        let hook = json!({ "source": source, "handler": "webhook-custom", "config": config });
        let hook = cluster.admin().create_hook(&hook).await?;
        hooks.push(admin::id(&hook)?.to_owned());
    }
    cluster.receiver.answer("/waits", &[503]);
    cluster.receiver.answer("/dies", &[410]);
    for source in ["waits", "dies"] {
        cluster.publish(source, "e", &json!({ "n": 1 })).await?;
    }
    Ok(hooks)
}

/// What waited is delivered, and what was dead is replayed.
async fn they_come_through(cluster: &Cluster, hooks: &[String]) -> Result {
    let api = cluster.admin();
    let path = format!("/event-hooks/{}/deliveries/retry", hooks[1]);
    api.post(&path, &json!({ "all": true }))
        .await?
        .expect(200)?;
    cluster.receiver.wait_for("/waits", 3).await?;
    let resumed = json!({ "delivery": { "paused": false } });
    api.patch(&format!("/event-hooks/{}", hooks[2]), &resumed)
        .await?
        .expect(200)?;
    let path = format!("/event-hooks/{}/dead/replay", hooks[2]);
    let replayed = api
        .post(&path, &json!({ "all": true }))
        .await?
        .expect(200)?;
    assert_eq!(replayed["replayed"], 1, "{replayed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_brings_everything_back() -> Result {
    let cli = nats_cli()?;
    let folder = cli.parent();
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1s,1h")
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "0,1,5s")
        .start()
        .await?;
    let hooks = one_waits_and_one_dies(&cluster).await?;
    let consumer = cluster.admin().create_consumer("ada").await?;
    let left = Leftovers { dead: 1, parked: 1 };
    cluster.rest_leaving(left).await?;

    let sender = Sender::new(&cluster.gateways[0], &["load"]).await?;
    let stop = Arc::new(AtomicBool::default());
    let before = load(sender.clone(), Arc::clone(&stop));
    cluster.receiver.wait_for("/load", 50).await?;
    stop.store(true, Ordering::Relaxed);
    let taken = before.await?;
    // What is taken now may be in the backup or not.
    let stop = Arc::new(AtomicBool::default());
    let meanwhile = load(sender, Arc::clone(&stop));
    let said = docs::shell(
        &cluster,
        "backup",
        &documented("nats backup stream")?,
        folder,
    )
    .await?;
    ensure!(said.contains("KV_hookline"), "{said}");
    stop.store(true, Ordering::Relaxed);
    meanwhile.await?;

    // All of NATS is lost, and Redis with it.
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.process_mut().kill();
    }
    cluster.nats.wipe()?;
    cluster.redis.kill();
    cluster.nats.start().await?;
    cluster.redis.start().await?;
    let mut folders = std::fs::read_dir(cluster.dir())?
        .flatten()
        .map(|entry| entry.path());
    let backup = folders.find(|path| path.join("KV_hookline").is_dir());
    let backup = backup.context("the backup")?.display().to_string();
    let restore = format!(
        "BACKUP={backup}\n{}",
        documented("nats backup restore stream \"$BACKUP/$stream\"")?
    );
    docs::shell(&cluster, "restore", &restore, folder).await?;
    cluster.receiver.answer("/waits", &[200]);
    cluster.receiver.answer("/dies", &[200]);
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
    }
    cluster.ready().await?;

    let api = cluster.admin();
    let found = api.get("/consumers/ada").await?.expect(200)?;
    assert_eq!(found, consumer);
    they_come_through(&cluster, &hooks).await?;
    eventually(SOON, "all that was taken before is delivered", async || {
        let arrived: Vec<_> = cluster
            .receiver
            .events("/load")
            .iter()
            .map(|one| one.text())
            .collect();
        let missing = taken
            .iter()
            .filter(|number| !arrived.contains(&number.to_string()));
        let missing = missing.count();
        ensure!(missing == 0, "{missing} of {}", taken.len());
        Ok(())
    })
    .await?;
    // And it goes on.
    let at = cluster.receiver.events("/load").len();
    cluster
        .nats
        .publish(wire::event("load", "e"), "{\"n\":\"new\"}")
        .await?;
    cluster.receiver.wait_for("/load", at + 1).await?;
    cluster.rest().await?;
    cluster.finish().await
}
