//! Every command of the README works as it stands there.

use std::process::Command;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Result, SOON, binaries};
use futures::StreamExt as _;
use serde_json::json;

const EGRESS: &str = "127.0.0.0/8,::1/128";
/// Fails at an error of the API, and waits for what is logged a moment later.
const PRELUDE: &str = "set -euo pipefail
curl() { command curl --fail-with-body --silent --show-error \"$@\"; }
grep() { for _ in $(seq 300); do command grep \"$@\" && return; sleep 0.1; done; return 1; }
";

fn readme() -> Result<String> {
    Ok(std::fs::read_to_string(
        binaries::workspace().join("README.md"),
    )?)
}

/// The text between fences with this word.
fn blocks<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let parts = text.split("\n```").skip(1).step_by(2);
    let mut blocks = Vec::new();
    for part in parts {
        if let Some((kind, block)) = part.split_once('\n')
            && kind == word
        {
            blocks.push(block);
        }
    }
    blocks
}

/// As on the local cluster, but for its ports and the place of its logs.
fn run(cluster: &Cluster, block: &str) -> Result {
    let admin = cluster.admin().base().replace("http://", "");
    let receiver = format!("127.0.0.1:{}", cluster.receiver.port());
    let logs = cluster.dir().display().to_string();
    let script = block
        .replace("localhost:8001", &admin)
        .replace("127.0.0.1:8080", &receiver)
        .replace(".run/up/logs", &logs);
    let output = Command::new("bash")
        .args(["-c", &format!("{PRELUDE}{script}")])
        .current_dir(binaries::workspace())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let answered = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{block}\n{answered}\n{said}");
    Ok(())
}

/// `nats pub` and `nats sub`, which not every machine has.
async fn nats(cluster: &Cluster, block: &str) -> Result {
    let (mut watch, mut published) = (None, Vec::new());
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let (verb, rest) = line
            .strip_prefix("nats ")
            .context("a call of nats")?
            .split_once(' ')
            .context("arguments")?;
        match verb {
            "pub" => published.push(rest.split_once(' ').context("a body")?),
            "sub" => {
                let subject = rest.trim_matches('\'').to_owned();
                let observer = cluster.nats.client_as("observer").await?;
                watch = Some(observer.subscribe(subject).await?);
                observer.flush().await?;
            }
            other => anyhow::bail!("nats {other} is not known here"),
        }
    }
    let injector = cluster.nats.client_as("injector").await?;
    for (subject, body) in published {
        let body = body.trim_matches('\'').to_owned();
        serde_json::from_str::<serde_json::Value>(&body)?;
        injector.publish(subject.to_owned(), body.into()).await?;
        injector.flush().await?;
        let watch = watch.as_mut().context("it is watched")?;
        // Events of earlier commands may still arrive.
        let seen = async {
            while let Some(seen) = watch.next().await {
                if seen.subject.ends_with("default.crud.consumers") {
                    return true;
                }
            }
            false
        };
        assert!(tokio::time::timeout(SOON, seen).await?, "the watch ended");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_readme_works() -> Result {
    let cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_EGRESS_ALLOW", EGRESS)
        .start()
        .await?;
    let readme = readme()?;
    let blocks = blocks(&readme, "sh");
    assert!(blocks.len() >= 5, "{} blocks", blocks.len());
    for block in blocks {
        if block.starts_with("nats ") {
            nats(&cluster, block).await?;
        } else {
            run(&cluster, block)?;
        }
    }
    // The examples do what the text says.
    cluster.receiver.wait_for_ping("/webhook").await?;
    let event = cluster.receiver.wait_for_one("/webhook").await?;
    assert_eq!(event.json["entity"]["username"], "Ada Lovelace");
    let slack = cluster.receiver.wait_for_one("/slack").await?;
    let text = "Admin account `grace` created; email address set to `grace@example.com`";
    assert_eq!(slack.json["text"], text);
    cluster.finish_unchecked().await
}

#[test]
fn every_make_target_of_the_readme_exists() -> Result {
    let makefile = std::fs::read_to_string(binaries::workspace().join("Makefile"))?;
    let readme = readme()?;
    let mentioned: Vec<_> = readme
        .split(['`', '\n'])
        .filter_map(|text| text.strip_prefix("make ")?.split_whitespace().next())
        .collect();
    assert!(mentioned.len() >= 5, "{mentioned:?}");
    for target in mentioned {
        let rule = format!("\n{target}:");
        assert!(makefile.contains(&rule), "make {target}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_is_nested_is_told_that_it_is_flat() -> Result {
    let cluster = Cluster::single().await?;
    let config = json!({
        "url": cluster.receiver.url("/hook"), "method": "POST", "payload": { "a": { "b": "c" } },
    });
    let hook = e2e::admin::hook("crud", "consumers", "webhook-custom", config);
    let refused = cluster
        .admin()
        .post("/event-hooks", &hook)
        .await?
        .expect(400)?;
    let said = refused["message"].as_str().unwrap_or_default();
    assert!(
        said.contains("config.payload.a: expected a string: a payload is flat"),
        "{said}"
    );
    cluster.finish().await
}
