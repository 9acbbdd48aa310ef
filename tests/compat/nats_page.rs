//! Every command of docs/nats-cli.md works.

use std::process::Command;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Leftovers, Result, SOON, admin, binaries, eventually};
use serde_json::json;

use crate::nats_cli;

/// The commands of docs/nats-cli.md.
fn page() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(binaries::workspace().join("docs/nats-cli.md"))?;
    let (mut commands, mut is_command) = (Vec::new(), false);
    for line in text.lines() {
        match line {
            "```sh" => is_command = true,
            "```" => is_command = false,
            line if is_command => commands.push(line.to_owned()),
            _ => {}
        }
    }
    Ok(commands)
}

/// A command as a user of the shell runs it, with `nats` on PATH.
fn shell(cluster: &Cluster, command: &str, hook: &str) -> Result<Command> {
    let cli = nats_cli()?;
    let folder = cli.parent().context("its folder")?.display().to_string();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .env("PATH", format!("{folder}:/usr/bin:/bin"))
        .env("HOME", cluster.dir())
        .env("NATS_URL", cluster.nats.url_as("operator"))
        .env("HOOK", hook);
    Ok(shell)
}

/// A command that goes on until it is stopped: it must show what happens meanwhile.
async fn goes_on(cluster: &Cluster, command: &str, hook: &str) -> Result {
    let log = cluster.dir().join("goes-on.log");
    let out = std::fs::File::create(&log)?;
    let mut child = shell(cluster, &format!("exec {command}"), hook)?
        .stderr(out.try_clone()?)
        .stdout(out)
        .spawn()?;
    let seen = eventually(SOON, command, async || {
        let upstream = json!({ "health": "healthy", "mark": "seen" });
        cluster.publish("balancer", "health", &upstream).await?;
        let shown = std::fs::read_to_string(&log)?;
        ensure!(
            shown.contains("seen") || shown.contains("PUT"),
            "it shows {shown}"
        );
        Ok(())
    })
    .await;
    child.kill()?;
    child.wait()?;
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_page_works() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_EVENT_BATCHES", "true")
        .dispatcher_env("HOOKLINE_EVENT_BATCHES", "true")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1h")
        .start()
        .await?;
    // A hook with a delivery that waits, a dead letter, and one that is no event.
    let (admin, receiver) = (cluster.admin(), &cluster.receiver);
    receiver.answer("/hook", &[503]);
    let config = json!({"url": receiver.url("/hook"), "method": "POST", "body": "x"});
    let hook = admin::hook("here", "there", "webhook-custom", config);
    let hook = admin.create_hook(&hook).await?;
    let hook = admin::id(&hook)?;
    cluster.publish("here", "there", &json!({})).await?;
    cluster
        .rest_leaving(Leftovers { dead: 0, parked: 1 })
        .await?;
    receiver.answer("/hook", &[410]);
    cluster.publish("here", "there", &json!({})).await?;
    let nothing = "hookline.events.default.here.there";
    cluster.nats.publish(nothing, "no JSON").await?;
    cluster
        .rest_leaving(Leftovers { dead: 2, parked: 1 })
        .await?;
    eventually(SOON, "attempts are logged", async || {
        ensure!(cluster.nats.count(e2e::wire::ATTEMPTS).await? > 0);
        Ok(())
    })
    .await?;

    let commands = page()?;
    ensure!(commands.len() > 25, "{} commands", commands.len());
    for command in &commands {
        ensure!(command.contains("nats "), "{command}");
        if command.contains(" sub ") || command.contains("kv watch") {
            goes_on(&cluster, command, hook).await?;
            continue;
        }
        let output = shell(&cluster, command, hook)?.output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.success(), "{command}: {said}");
        for problem in ["nats: error", "no message found", "No subjects"] {
            ensure!(!said.contains(problem), "{command}: {said}");
        }
        let shows = match command.as_str() {
            c if c.contains("stream ls") => "Hookline: the delivery log",
            c if c.contains("kv ls") => "entity.=2A.event_hooks.",
            c if c.contains("kv get") => "webhook-custom",
            c if c.contains("deliveries.wait.$HOOK") => "the receiver answered 503",
            c if c.contains("dead.$HOOK") => "the receiver answered 410",
            c if c.contains("dead.event") => "Hookline-Reason",
            c if c.contains("attempts.$HOOK") => "\"attempt\":1",
            c if c.contains("nats request") => "\"stream\":\"HOOKLINE_EVENTS\"",
            c if c.contains("--count") => "100",
            c if c.contains("--atomic") => "",
            c if c.contains("nats pub") => "Published",
            c if c.contains("nats stream subjects") => hook,
            _ => "",
        };
        ensure!(
            said.contains(shows),
            "{command} does not show {shows}: {said}"
        );
    }
    // All that was published was taken.
    cluster
        .rest_leaving(Leftovers { dead: 2, parked: 1 })
        .await?;
    let heard = [("outcome", "unmatched")];
    let unmatched = cluster
        .dispatchers_metric("hookline_events_total", &heard)
        .await?;
    ensure!(unmatched >= 207.0, "{unmatched}");
    cluster
        .finish_leaving(Leftovers { dead: 2, parked: 1 })
        .await
}
