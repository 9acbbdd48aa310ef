//! Startup, settings and the status API.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::ensure;
use e2e::{Cluster, Result, SOON, Service, Store, binaries, eventually};

/// Waits until the service logs that it waits for `address`, and is not ready.
async fn waits_for(service: &mut Service, address: &str) -> Result {
    let what = format!("{} waits for {address}", service.process().name());
    eventually(SOON, &what, async || {
        service.check_running()?;
        let log = service.process().log();
        ensure!(log.contains(address), "it says: {log}");
        // The status API may start later than the log.
        let ready = service.status_of("/readyz").await;
        ensure!(!matches!(ready, Ok(200)), "it says that it is ready");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_wait_for_nats_and_redis() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let nats = cluster.nats.url().replace("nats://", "");
    let redis = cluster.redis.url().replace("redis://", "");
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
    }
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        waits_for(service, &nats).await?;
    }

    cluster.nats.start().await?;
    cluster.gateways[0].ready().await?;
    waits_for(&mut cluster.dispatchers[0], &redis).await?;

    cluster.redis.start().await?;
    cluster.ready().await?;
    cluster.webhook("/hook").await?;
    cluster.admin().create_consumer("Ada").await?;
    cluster.receiver.wait_for("/hook", 1).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_service_ends_on_sigterm() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let nats = cluster.nats.url().replace("nats://", "");
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
        waits_for(service, &nats).await?;
        service.stop().await?;
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_answers_on_its_status_address() -> Result {
    let cluster = Cluster::single().await?;
    for service in cluster.gateways.iter().chain(&cluster.dispatchers) {
        let name = service.process().name();
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(service.status_of(path).await?, 200, "{name} {path}");
        }
        assert!(service.metrics().await?.contains("hookline_"), "{name}");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_little_storage_stops_the_start_and_names_the_setting() -> Result {
    let builder = Cluster::builder().nats_store(Store::Server(1 << 30));
    let mut cluster = builder.prepare().await?;
    cluster.nats.start().await?;
    cluster.redis.start().await?;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.dispatchers) {
        service.start()?;
        let code = service.process_mut().exit_code(SOON).await?;
        assert_ne!(code, 0);
        let said = service.process().log();
        ensure!(said.contains("HOOKLINE_EVENTS_MAX_BYTES"), "{said}");
    }
    cluster.finish_unchecked().await
}

/// The variables that a service's `--help` names.
fn settings(program: &str) -> Result<BTreeSet<String>> {
    let output = Command::new(binaries::service(program)?)
        .arg("--help")
        .output()?;
    assert!(output.status.success(), "{program}");
    let help = String::from_utf8(output.stdout)?;
    let listed = help.split("[env: ").skip(1);
    let name = |text: &str| text.split(['=', ']']).next().unwrap_or_default().to_owned();
    Ok(listed.map(name).collect())
}

#[test]
fn the_readme_lists_every_setting_of_the_help_and_no_other() -> Result {
    let readme = std::fs::read_to_string(binaries::workspace().join("README.md"))?;
    let table: BTreeSet<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `HOOKLINE_")?.split('`').next())
        .map(|name| format!("HOOKLINE_{name}"))
        .collect();
    let [gateway, dispatcher] = ["hookline-gateway", "hookline-dispatcher"].map(settings);
    let help: BTreeSet<String> = gateway?.union(&dispatcher?).cloned().collect();
    assert!(help.len() > 10, "{help:?}");
    assert_eq!(table, help);
    Ok(())
}

#[test]
fn an_unknown_or_wrong_setting_is_refused() -> Result {
    for (program, argument) in [
        ("hookline-gateway", "--no-such-setting"),
        ("hookline-dispatcher", "--no-such-setting"),
        ("hookline-dispatcher", "--lease=soon"),
        ("hookline-dispatcher", "--egress-allow=everything"),
    ] {
        let output = Command::new(binaries::service(program)?)
            .arg(argument)
            .output()?;
        assert_eq!(output.status.code(), Some(2), "{program} {argument}");
        let said = String::from_utf8(output.stderr)?;
        let name = argument.split('=').next().unwrap_or_default();
        assert!(said.contains(name), "{program} {argument}: {said}");
    }
    Ok(())
}
