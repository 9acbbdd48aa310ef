//! The bucket and other streams are removed or replaced while services run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::stream::Config;
use e2e::{Cluster, Leftovers, Result, SOON, eventually, wire};
use hookline_shared::subject::BUCKET_STREAM;
use serde_json::json;

/// A hook for `/old`, and a consumer that it has heard of.
async fn start() -> Result<(Cluster, Config)> {
    let cluster = Cluster::single().await?;
    cluster.webhook("/old").await?;
    cluster.admin().create_consumer("old").await?;
    cluster.receiver.wait_for("/old", 1).await?;
    cluster.rest().await?;
    let bucket = cluster.nats.stream(BUCKET_STREAM).await?;
    let config = bucket.cached_info().config.clone();
    Ok((cluster, config))
}

/// The cluster serves an empty bucket, and delivers to its hooks.
async fn begins_anew(cluster: &Cluster) -> Result {
    let admin = cluster.admin();
    eventually(SOON, "the old entities are gone", async || {
        ensure!(admin.list("/consumers").await?.is_empty());
        ensure!(admin.list("/event-hooks").await?.is_empty());
        let workspaces = admin.list("/workspaces").await?;
        ensure!(workspaces.len() == 1, "{workspaces:?}");
        ensure!(cluster.gateways[0].status_of("/readyz").await? == 200);
        Ok(())
    })
    .await?;
    cluster.webhook("/new").await?;
    cluster.receiver.wait_for_ping("/new").await?;
    let heard = cluster.receiver.events("/new").len();
    admin.create_consumer("old").await?;
    cluster.receiver.wait_for("/new", heard + 1).await?;
    cluster.rest().await?;
    assert_eq!(cluster.receiver.events("/old").len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_bucket_is_named_and_an_empty_one_is_served() -> Result {
    let (cluster, config) = start().await?;
    let jetstream = cluster.nats.jetstream();
    jetstream.delete_stream(BUCKET_STREAM).await?;
    let admin = cluster.admin();
    let one = json!({ "username": "one" });
    eventually(SOON, "the gateway says what is wrong", async || {
        let answer = admin.post("/consumers", &one).await?.expect(503)?;
        let said = answer["message"].as_str().unwrap_or_default();
        ensure!(
            said.contains("KV_hookline is missing in NATS: restore it"),
            "{said}"
        );
        ensure!(cluster.gateways[0].status_of("/readyz").await? == 503);
        Ok(())
    })
    .await?;
    let kept = admin.list("/consumers").await?;
    assert_eq!(kept.len(), 1, "for a backup: {kept:?}");
    // No hook of an unknown bucket is missed.
    let data = json!({ "n": 1 });
    cluster.publish("crud", "consumers", &data).await?;
    eventually(SOON, "the dispatcher holds the event", async || {
        let log = cluster.dispatchers[0].process().log();
        ensure!(log.contains("cannot catch up with the hooks"), "{log}");
        ensure!(cluster.nats.open_events().await? == 1);
        Ok(())
    })
    .await?;
    jetstream.create_stream(config).await?;
    begins_anew(&cluster).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_was_replaced_at_once_is_noticed() -> Result {
    let (mut cluster, config) = start().await?;
    let jetstream = cluster.nats.jetstream();
    jetstream.delete_stream(BUCKET_STREAM).await?;
    jetstream.create_stream(config).await?;
    begins_anew(&cluster).await?;
    // Redis holds the id of the first.
    let second = cluster.add_dispatcher()?;
    second.start()?;
    second.ready().await?;
    for service in cluster.gateways.iter().chain(&cluster.dispatchers[..1]) {
        let log = service.process().log();
        assert!(
            log.contains("KV_hookline was replaced by another one"),
            "{log}"
        );
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_hookline_did_not_make_is_named() -> Result {
    let (cluster, config) = start().await?;
    let jetstream = cluster.nats.jetstream();
    jetstream.delete_stream(BUCKET_STREAM).await?;
    let mut plain = config.clone();
    plain.allow_atomic_publish = false;
    jetstream.create_stream(plain).await?;
    let admin = cluster.admin();
    let one = json!({ "username": "one" });
    eventually(SOON, "the gateway says what is wrong", async || {
        let answer = admin.post("/consumers", &one).await?.expect(503)?;
        let said = answer["message"].as_str().unwrap_or_default();
        ensure!(said.contains("takes no atomic batches"), "{said}");
        let log = cluster.gateways[0].process().log();
        ensure!(
            log.contains("allow_atomic is unset, expected true"),
            "{log}"
        );
        Ok(())
    })
    .await?;
    jetstream.update_stream(config).await?;
    begins_anew(&cluster).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_streams_that_are_removed_are_created_again() -> Result {
    let mut cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "3s")
        .start()
        .await?;
    let hook = cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    let jetstream = cluster.nats.jetstream();
    let streams = [wire::EVENTS, wire::DELIVERIES, wire::DEAD, wire::ATTEMPTS];
    for stream in streams {
        jetstream.delete_stream(stream).await?;
    }
    eventually(SOON, "they are there again", async || {
        for stream in streams {
            cluster.nats.stream(stream).await?;
        }
        Ok(())
    })
    .await?;
    cluster.receiver.answer("/hook", &[503, 200, 503, 503]);
    // Through the outbox, with a delivery that waits and one that dies.
    cluster.admin().create_consumer("one").await?;
    cluster.receiver.wait_for("/hook", 2).await?;
    let data = json!({ "n": 2 });
    cluster.publish("crud", "consumers", &data).await?;
    cluster.receiver.wait_for("/hook", 4).await?;
    let dead = Leftovers { dead: 1, parked: 0 };
    cluster.rest_leaving(dead).await?;
    let path = format!("/event-hooks/{}/attempts", e2e::admin::id(&hook)?);
    eventually(SOON, "the attempts are logged", async || {
        let logged = cluster.admin().get(&path).await?.expect(200)?;
        ensure!(
            logged["data"].as_array().is_some_and(|all| all.len() == 4),
            "{logged}"
        );
        Ok(())
    })
    .await?;
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.check_running()?;
    }
    cluster.finish_leaving(dead).await
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> Result {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, target) = (entry?, to);
        let target = target.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A folder with this name below another one.
fn below(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let folders = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    folders.into_iter().find_map(|path| {
        let is_it = path.file_name().is_some_and(|found| found == name);
        if is_it {
            Some(path)
        } else {
            below(&path, name)
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_restored_is_served_as_it_was() -> Result {
    let (mut cluster, _) = start().await?;
    cluster.nats.kill();
    let stored = below(cluster.dir(), BUCKET_STREAM).context("the bucket's files")?;
    let backup = tempfile::tempdir()?;
    copy(&stored, backup.path())?;
    cluster.nats.start().await?;
    cluster.ready().await?;
    // Not in the backup.
    let later = cluster.webhook("/later").await?;
    let data = json!({ "n": 1 });
    cluster.publish("crud", "consumers", &data).await?;
    cluster.receiver.wait_for("/old", 2).await?;
    cluster.rest().await?;
    cluster.nats.kill();
    std::fs::remove_dir_all(&stored)?;
    copy(backup.path(), &stored)?;
    cluster.nats.start().await?;
    cluster.ready().await?;
    let path = format!("/event-hooks/{}", e2e::admin::id(&later)?);
    eventually(SOON, "what is not in the backup is gone", async || {
        cluster.admin().get(&path).await?.expect(404)?;
        let listed = cluster.admin().list("/consumers").await?;
        ensure!(listed.len() == 1, "{listed:?}");
        for service in cluster.gateways.iter().chain(&cluster.dispatchers) {
            let log = service.process().log();
            ensure!(log.contains("was replaced by another one"), "{log}");
        }
        Ok(())
    })
    .await?;
    let heard = cluster.receiver.events("/later").len();
    let data = json!({ "n": 2 });
    cluster.publish("crud", "consumers", &data).await?;
    cluster.receiver.wait_for("/old", 3).await?;
    assert_eq!(cluster.receiver.events("/later").len(), heard);
    cluster.finish_unchecked().await
}
