//! Streams that exist are changed by `hookline-gateway migrate`, while everything runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use e2e::process::Process;
use e2e::{Cluster, Result, SOON, Sender, wire};
use serde_json::json;
use tokio::task::JoinHandle;

const STREAMS: [&str; 6] = [
    wire::BUCKET,
    wire::EVENTS,
    wire::DELIVERIES,
    wire::DEAD,
    wire::ATTEMPTS,
    "HOOKLINE_AUDIT",
];

/// Runs the command as a user of NATS. Returns its exit code and what it said.
async fn migrate(
    cluster: &Cluster,
    user: &str,
    replicas: &str,
    arguments: &[&str],
) -> Result<(i32, String)> {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let name = format!("migrate-{}", RUNS.fetch_add(1, Ordering::Relaxed));
    let arguments: Vec<_> = ["migrate"].iter().chain(arguments).copied().collect();
    let mut command: Process = cluster.gateways[0].process().again(&name, &arguments);
    command.set_env("HOOKLINE_NATS_URL", cluster.nats.url_as(user));
    command.set_env("HOOKLINE_REPLICAS", replicas);
    command.set_env("HOOKLINE_EVENT_BATCHES", "true");
    command.start()?;
    let code = command.exit_code(SOON).await?;
    Ok((code, command.log()))
}

/// Raises events until it is told to stop. Returns how many were taken.
fn load(sender: Sender, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut taken = 0;
        while !stop.load(Ordering::Relaxed) {
            let (key, data) = (taken.to_string(), json!({ "n": taken }));
            for _ in 0..50 {
                let sent = sender.raise_once("/events/load/e", &key, &data);
                if sent
                    .await
                    .is_ok_and(|answer| [200, 202].contains(&answer.status))
                {
                    taken += 1;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        taken
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_becomes_three_under_load() -> Result {
    let mut cluster = Cluster::builder()
        .nats_servers(3)
        .gateway_env("HOOKLINE_REPLICAS", "1")
        .dispatcher_env("HOOKLINE_REPLICAS", "1")
        .gateway_env("HOOKLINE_EVENT_BATCHES", "false")
        .dispatcher_env("HOOKLINE_EVENT_BATCHES", "false")
        .start()
        .await?;
    let config = json!({ "url": cluster.receiver.url("/load") });
    let hook = json!({ "source": "load", "handler": "webhook", "config": config });
    cluster.admin().create_hook(&hook).await?;
    let sender = Sender::new(&cluster.gateways[0], &["load"]).await?;
    let stop = Arc::new(AtomicBool::default());
    let load = load(sender, Arc::clone(&stop));
    cluster.receiver.wait_for("/load", 20).await?;

    let (code, said) = migrate(&cluster, "operator", "3", &["--dry-run"]).await?;
    ensure!(code == 0, "{said}");
    for line in [
        "KV_hookline: num_replicas: 1 -> 3",
        "HOOKLINE_EVENTS: allow_atomic: unset -> true",
        "HOOKLINE_ATTEMPTS: cannot be changed",
        "nothing was changed",
    ] {
        ensure!(said.contains(line), "{line}: {said}");
    }
    let (code, said) = migrate(&cluster, "gateway", "3", &[]).await?;
    ensure!(
        code == 1 && said.contains("NATS forbids this user"),
        "{said}"
    );
    for stream in STREAMS {
        let copies = cluster
            .nats
            .stream(stream)
            .await?
            .cached_info()
            .config
            .num_replicas;
        ensure!(copies == 1, "{stream} has {copies}");
    }
    let (code, said) = migrate(&cluster, "operator", "3", &[]).await?;
    ensure!(code == 1 && said.contains("--drop-delivery-log"), "{said}");
    let (code, said) = migrate(&cluster, "operator", "3", &["--drop-delivery-log"]).await?;
    ensure!(
        code == 0 && said.contains("HOOKLINE_ATTEMPTS: done"),
        "{said}"
    );
    let (code, said) = migrate(&cluster, "operator", "3", &[]).await?;
    ensure!(code == 0 && said.contains("all streams are as"), "{said}");
    // Two of three copies are enough.
    let before = cluster.receiver.events("/load").len();
    cluster.nats.kill_leader(wire::EVENTS).await?;
    cluster.receiver.wait_for("/load", before + 50).await?;
    stop.store(true, Ordering::Relaxed);
    let taken = load.await?;
    cluster.rest().await?;
    let mut numbers = cluster.receiver.numbers("/load");
    numbers.dedup();
    assert_eq!(numbers, (0..taken).collect::<Vec<_>>());
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_asked_whether_it_is_healthy() -> Result {
    let mut cluster = Cluster::single().await?;
    let gateway = cluster.gateways[0]
        .process()
        .again("gateway-health", &["healthcheck"]);
    let dispatcher = cluster.dispatchers[0]
        .process()
        .again("dispatcher-health", &["healthcheck"]);
    let mut checks = [gateway, dispatcher];
    for check in &mut checks {
        check.start()?;
        assert_eq!(check.exit_code(SOON).await?, 0, "{}", check.log());
    }
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.stop().await?;
    }
    for check in &mut checks {
        check.start()?;
        assert_eq!(check.exit_code(SOON).await?, 1, "{}", check.log());
        ensure!(
            check.log().contains("no answer from 127.0.0.1"),
            "{}",
            check.log()
        );
    }
    cluster.finish_unchecked().await
}
