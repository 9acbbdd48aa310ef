//! An upgrade from the commit before this one, as docs/operating.md says, while events come in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Result, SOON, Service, binaries, wire};
use serde_json::json;
use tokio::task::JoinHandle;

/// The services of the commit before.
fn previous(name: &str) -> Result<PathBuf> {
    let folder = binaries::setting("PREVIOUS_BINARIES").map(PathBuf::from);
    let folder = folder.context("PREVIOUS_BINARIES is not set: run `make compat`")?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is missing", path.display());
    Ok(path)
}

async fn replace(service: &mut Service, program: &Path) -> Result {
    service.stop().await?;
    service.process_mut().set_program(program.to_owned());
    service.start()?;
    service.ready().await
}

/// Publishes until it is told to stop. Returns how many events were stored.
fn publish(cluster: &Cluster, stop: Arc<AtomicBool>) -> JoinHandle<Result<u64>> {
    let client = cluster.nats.jetstream();
    tokio::spawn(async move {
        let mut stored = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let data = json!({ "n": stored }).to_string();
            let stored_now = client.publish(wire::event("load", "e"), data.into());
            stored_now.await?.await?;
            stored += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(stored)
    })
}

/// Creates consumers, through whichever gateway answers. Returns how many.
fn change(cluster: &Cluster, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    let admins = cluster.gateways.iter().map(|one| one.admin().clone());
    let admins: Vec<_> = admins.collect();
    tokio::spawn(async move {
        let mut created = 0;
        while !stop.load(Ordering::Relaxed) {
            let consumer = json!({ "username": format!("user-{created}") });
            for admin in admins.iter().cycle().take(200) {
                match admin.post("/consumers", &consumer).await {
                    // 409: it was made, and its answer was lost.
                    Ok(answer) if [201, 409].contains(&answer.status) => break,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            created += 1;
        }
        created
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_after_a_rolling_upgrade_under_load() -> Result {
    let mut cluster = Cluster::builder()
        .gateways(2)
        .dispatchers(2)
        .prepare()
        .await?;
    for gateway in &mut cluster.gateways {
        gateway
            .process_mut()
            .set_program(previous("hookline-gateway")?);
    }
    for dispatcher in &mut cluster.dispatchers {
        dispatcher
            .process_mut()
            .set_program(previous("hookline-dispatcher")?);
    }
    cluster.start().await?;
    let config = json!({ "url": cluster.receiver.url("/load") });
    let hook = json!({ "source": "load", "handler": "webhook", "config": config });
    cluster.admin().create_hook(&hook).await?;
    cluster.webhook("/consumers").await?;
    let stop = Arc::new(AtomicBool::default());
    let events = publish(&cluster, Arc::clone(&stop));
    let changes = change(&cluster, Arc::clone(&stop));
    cluster.receiver.wait_for("/load", 100).await?;
    cluster.receiver.wait_for("/consumers", 20).await?;

    let (gateway, dispatcher) = (
        binaries::service("hookline-gateway")?,
        binaries::service("hookline-dispatcher")?,
    );
    for arguments in [&["migrate", "--dry-run"][..], &["migrate"]] {
        let mut command = cluster.gateways[0].process().again("migrate", arguments);
        command.set_program(gateway.clone());
        command.set_env("HOOKLINE_NATS_URL", cluster.nats.url_as("operator"));
        command.start()?;
        ensure!(command.exit_code(SOON).await? == 0, "{}", command.log());
    }
    for service in &mut cluster.dispatchers {
        replace(service, &dispatcher).await?;
        let so_far = cluster.receiver.events("/load").len();
        cluster.receiver.wait_for("/load", so_far + 100).await?;
    }
    for service in &mut cluster.gateways {
        replace(service, &gateway).await?;
        let so_far = cluster.receiver.events("/consumers").len();
        cluster.receiver.wait_for("/consumers", so_far + 20).await?;
    }
    stop.store(true, Ordering::Relaxed);
    let (stored, created) = (events.await??, changes.await?);
    cluster.rest().await?;
    let all: Vec<_> = (0..stored).collect();
    assert_eq!(cluster.receiver.numbers("/load"), all, "each event once");
    assert_eq!(cluster.receiver.events("/consumers").len(), created);
    cluster.finish().await
}
