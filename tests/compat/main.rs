//! Third-party clients: the real NATS CLI, a real OpenTelemetry Collector, and clients of Kong's Admin API.
//!
//! Run by `make compat`, which says where the programs are, and not by a plain `cargo test`.

mod collector;
mod kong_clients;
mod nats_page;
mod operating;
mod upgrade;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use e2e::process::Process;
use e2e::{Cluster, Leftovers, Result, SOON, admin, binaries, eventually};
use serde_json::{Value, json};

/// A program that `make compat` builds, by the variable that says where it is.
fn program(variable: &str) -> Result<PathBuf> {
    let path = binaries::setting(variable).map(PathBuf::from);
    let path = path.with_context(|| format!("{variable} is not set: run `make compat`"))?;
    ensure!(path.is_file(), "{variable}: {} is missing", path.display());
    Ok(path)
}

fn nats_cli() -> Result<PathBuf> {
    program("NATS_CLI")
}

/// Runs `nats pub`, once without headers and once with an id.
fn publish_both(cluster: &Cluster, subject: &str, id: &str, data: &Value) -> Result {
    let header = format!("Nats-Msg-Id:{id}");
    for headers in [&[][..], &["-H", &header][..]] {
        let output = Command::new(nats_cli()?)
            .args(["--server", &cluster.nats.url_as("injector"), "pub", subject])
            .arg(data.to_string())
            .args(headers)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nats pub failed: {said}");
    }
    Ok(())
}

fn consumer(username: &str) -> Value {
    json!({
        "entity": {
            "created_at": 1_627_581_878, "type": 0, "username": username,
            "id": "0fd2319f-13ea-4582-a448-8d11893026a8",
        },
        "operation": "create", "schema": "consumers",
    })
}

/// Starts `nats sub hookline.watch.>`, and waits until it hears an event.
async fn watch(cluster: &Cluster, dir: &std::path::Path) -> Result<Process> {
    let server = cluster.nats.url_as("observer");
    let mut watch = Process::new("nats-sub", nats_cli()?, dir)
        .env("HOME", dir.display().to_string())
        .args(["--server", &server, "sub", "hookline.watch.>"]);
    watch.start()?;
    eventually(SOON, "nats sub hears events", async || {
        watch.check_running()?;
        let nobody = "hookline.events.default.crud.nobody";
        cluster.nats.publish(nobody, "{}").await?;
        ensure!(watch.log().contains("crud.nobody"), "{}", watch.log());
        Ok(())
    })
    .await?;
    Ok(watch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nats_cli_injects_the_four_examples() -> Result {
    nats_cli()?;
    let cluster = Cluster::builder().dispatchers(2).start().await?;
    let admin = cluster.admin();
    let receiver = &cluster.receiver;
    let dir = tempfile::tempdir()?;
    let watch = watch(&cluster, dir.path()).await?;

    let webhook = json!({ "url": receiver.url("/webhook") });
    admin.hook_consumers("webhook", webhook).await?;
    let slack = json!({
        "url": receiver.url("/slack"), "method": "POST",
        "headers": { "content-type": "application/json" },
        "payload": { "text": "Admin account `{{ entity.username }}` {{ operation}}d; \
            email address set to `{{ entity.email }}`" },
    });
    let slack = admin::hook("crud", "admins", "webhook-custom", slack);
    admin.create_hook(&slack).await?;
    admin.hook_consumers("log", json!({})).await?;
    let functions = json!({ "functions": ["return function (data, event, source, pid)\n  \
        local user = data.entity.username\n  \
        error(\"Event hook on consumer \" .. user .. \"\")\nend"] });
    admin.hook_consumers("lambda", functions).await?;

    let consumers = "hookline.events.default.crud.consumers";
    publish_both(&cluster, consumers, "id-1", &consumer("Lois Lane"))?;
    let invited = json!({
        "entity": { "username": "ada", "email": "ada@example.com" },
        "operation": "create", "schema": "admins",
    });
    publish_both(
        &cluster,
        "hookline.events.default.crud.admins",
        "id-2",
        &invited,
    )?;

    for event in receiver.wait_for("/webhook", 2).await? {
        let mut expected = consumer("Lois Lane");
        expected["source"] = json!("crud");
        expected["event"] = json!("consumers");
        assert_eq!(event.json, expected);
    }
    for event in receiver.wait_for("/slack", 2).await? {
        let text = "Admin account `ada` created; email address set to `ada@example.com`";
        assert_eq!(event.json, json!({ "text": text }));
    }
    let leftovers = Leftovers { dead: 2, parked: 0 };
    cluster.rest_leaving(leftovers).await?;
    let count = |text: &str| {
        let lines = cluster.dispatchers.iter().flat_map(|d| d.log_lines());
        lines
            .filter(|line| line.json().to_string().contains(text))
            .count()
    };
    assert_eq!(count("log callback: "), 2);
    assert_eq!(count(":3: Event hook on consumer Lois Lane"), 2);
    let heard = watch.log();
    for subject in ["crud.consumers", "crud.admins"] {
        let subject = format!("hookline.watch.default.{subject}\"");
        assert_eq!(heard.matches(&subject).count(), 2, "{subject}: {heard}");
    }
    drop(watch);
    cluster.finish_leaving(leftovers).await
}
