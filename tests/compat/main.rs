//! Third-party clients: the real NATS CLI publishes events.
//!
//! Run by `make compat`, which sets `NATS_CLI` to the program's path, and not by a plain `cargo test`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use e2e::process::Process;
use e2e::{Cluster, Leftovers, Result, SOON, admin, binaries, eventually};
use serde_json::{Value, json};

fn nats_cli() -> Result<PathBuf> {
    let path = binaries::setting("NATS_CLI").map(PathBuf::from);
    let path = path.context("NATS_CLI does not say where the NATS CLI is: run `make compat`")?;
    ensure!(path.is_file(), "NATS_CLI: {} is missing", path.display());
    Ok(path)
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
