//! Every alert fires in the fault that it is for and is over after it, on real clusters with a real Prometheus, and the
//! first command of its runbook works while it fires. Minutes of the rules are seconds here.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Leftovers, Prometheus, Result, SOON, Store, binaries, eventually, wire};
use serde_json::json;

/// Alerts by test, with their severities.
const WORKERS: [(&str, &str); 8] = [
    ("HooklineNoDispatcher", "page"),
    ("HooklineMetricsAbsent", "page"),
    ("HooklineTargetDown", "ticket"),
    ("HooklineOldestEventTooOld", "page"),
    ("HooklineDueDeliveryTooOld", "ticket"),
    ("HooklineConsumerLagGrows", "ticket"),
    ("HooklineDeliveryLagHigh", "page"),
    ("HooklineDeliveryLagHigh", "ticket"),
];
/// The circuit first: it is probed less and less.
const RECEIVERS: [(&str, &str); 3] = [
    ("HooklineCircuitOpenLong", "ticket"),
    ("HooklineDeadLetters", "ticket"),
    ("HooklineDeadLettersMany", "page"),
];
const SERVERS: [(&str, &str); 3] = [
    ("HooklineRedisAway", "page"),
    ("HooklineRedisAway", "ticket"),
    ("HooklineNatsAway", "page"),
];
const REQUIRED: [(&str, &str); 1] = [("HooklineNothingSettles", "page")];
const STREAMS: [(&str, &str); 3] = [
    ("HooklineStreamNearlyFull", "ticket"),
    ("HooklinePublishingRefused", "page"),
    ("HooklineDeadLettersFull", "page"),
];
const STORAGE: [(&str, &str); 1] = [("HooklineStorageScarce", "page")];
const PROCESSES: [(&str, &str); 2] = [
    ("HooklineVersionsMixed", "ticket"),
    ("HooklineQueueMetricsAbsent", "page"),
];
/// Fires always.
const WATCHDOG: (&str, &str) = ("HooklineWatchdog", "none");

/// Names and severities in the rules that are shipped.
fn shipped() -> Result<BTreeSet<(String, String)>> {
    let rules = e2e::prometheus::shipped_rules().join("alerts.yml");
    let (mut name, mut alerts) = (String::new(), BTreeSet::new());
    for line in std::fs::read_to_string(rules)?.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            alert.clone_into(&mut name);
        }
        if let Some(severity) = line.strip_prefix("severity: ") {
            alerts.insert((name.clone(), severity.to_owned()));
        }
    }
    Ok(alerts)
}

#[test]
fn every_alert_has_its_fault_here() -> Result {
    let tried: BTreeSet<_> = [
        &WORKERS[..],
        &RECEIVERS,
        &SERVERS,
        &REQUIRED,
        &STREAMS,
        &STORAGE,
        &PROCESSES,
        &[WATCHDOG],
    ]
    .concat()
    .into_iter()
    .map(|(name, severity)| (name.to_owned(), severity.to_owned()))
    .collect();
    assert_eq!(tried, shipped()?);
    Ok(())
}

/// The first command of an alert's runbook.
fn command(alert: &str) -> Result<String> {
    let page = std::fs::read_to_string(binaries::workspace().join("docs/runbooks.md"))?;
    let section = page.split(&format!("\n## {alert}\n")).nth(1);
    let section = section.with_context(|| format!("{alert} has no runbook"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let block = section.split("\n```sh\n").nth(1);
    let block = block.and_then(|block| block.split_once("\n```"));
    let (command, _) = block.with_context(|| format!("the runbook of {alert} has no command"))?;
    Ok(command.to_owned())
}

struct Watch {
    prometheus: Prometheus,
}

impl Watch {
    async fn start(cluster: &Cluster, more: &[&str]) -> Result<Self> {
        let prometheus = Prometheus::start(cluster, more).await?;
        let watch = Self { prometheus };
        watch.is_well().await?;
        Ok(watch)
    }

    /// Waits until nothing fires but the watchdog.
    async fn is_well(&self) -> Result {
        eventually(3 * SOON, "nothing fires", async || {
            let firing = self.prometheus.firing().await?;
            let (name, severity) = WATCHDOG;
            let well = BTreeSet::from([(name.to_owned(), severity.to_owned())]);
            ensure!(firing == well, "{firing:?}");
            Ok(())
        })
        .await
    }

    async fn is_over(&self, alert: &str) -> Result {
        eventually(SOON, "it is over", async || {
            let firing = self.prometheus.firing().await?;
            ensure!(firing.iter().all(|(name, _)| name != alert), "{firing:?}");
            Ok(())
        })
        .await
    }

    /// Waits until an alert fires, and runs the first command of its runbook.
    async fn fires(&self, cluster: &Cluster, alert: (&str, &str)) -> Result {
        self.fires_while(cluster, alert, async || Ok(())).await
    }

    /// The same, while something goes on.
    async fn fires_while(
        &self,
        cluster: &Cluster,
        (name, severity): (&str, &str),
        work: impl AsyncFn() -> Result,
    ) -> Result {
        let alert = (name.to_owned(), severity.to_owned());
        let what = format!("{name} fires, {severity}");
        eventually(2 * SOON, &what, async || {
            work().await?;
            let firing = self.prometheus.firing().await?;
            ensure!(firing.contains(&alert), "these do: {firing:?}");
            Ok(())
        })
        .await?;
        self.run(cluster, name).await
    }

    async fn run(&self, cluster: &Cluster, name: &str) -> Result {
        let command = command(name)?;
        let hooks = cluster
            .admin()
            .list("/event-hooks")
            .await
            .unwrap_or_default();
        let hook = hooks
            .first()
            .map_or("", |hook| hook["id"].as_str().unwrap_or_default());
        let status = |address: &str| format!("http://{address}");
        let output = Command::new("bash")
            .args(["-c", &command])
            .env("HOOKLINE_ADMIN", cluster.admin().base())
            .env(
                "HOOKLINE_GATEWAY_STATUS",
                status(cluster.gateways[0].status_address()),
            )
            .env(
                "HOOKLINE_DISPATCHER_STATUS",
                status(cluster.dispatchers[0].status_address()),
            )
            .env("PROMETHEUS", self.prometheus.url())
            // Any will do: the answer is about it, whether it is the alert's or not.
            .env("HOOK", hook)
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(!said.trim().is_empty(), "{name}: {command} says nothing");
        // A dispatcher that is gone cannot be asked, which is an answer.
        let is_refused = said.contains("curl: (7)");
        ensure!(
            output.status.success() || is_refused,
            "{name}: {command} failed: {said}"
        );
        let is_known = !said.contains("\"status\":\"error\"") && !said.contains("Not found");
        ensure!(is_known, "{name}: {command}: {said}");
        Ok(())
    }
}

async fn publish(cluster: &Cluster, event: &str, count: usize) -> Result {
    for _ in 0..count {
        cluster.publish("alerts", event, &json!({})).await?;
    }
    Ok(())
}

async fn hook(cluster: &Cluster, event: &str, delivery: serde_json::Value) -> Result {
    let config = json!({"url": cluster.receiver.url(&format!("/{event}")), "method": "POST",
        "body": "x"});
    let mut hook = e2e::admin::hook("alerts", event, "webhook-custom", config);
    hook["delivery"] = delivery;
    cluster.admin().create_hook(&hook).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatchers_that_are_gone_are_missed() -> Result {
    let mut cluster = Cluster::builder().dispatchers(2).start().await?;
    hook(&cluster, "well", json!({})).await?;
    hook(&cluster, "sick", json!({"retry": [8, 8]})).await?;
    let watch = Watch::start(&cluster, &[]).await?;
    cluster.receiver.answer("/sick", &[500]);
    publish(&cluster, "sick", 1).await?;
    cluster.receiver.wait_for("/sick", 1).await?;
    let parked = Leftovers { dead: 0, parked: 1 };
    cluster.rest_leaving(parked).await?;
    cluster.receiver.answer("/sick", &[200]);
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.stop().await?;
    }
    let (late, gone): (Vec<_>, Vec<_>) = WORKERS
        .into_iter()
        .partition(|(name, _)| *name == "HooklineDeliveryLagHigh");
    for alert in gone {
        let more = async || publish(&cluster, "well", 3).await;
        watch.fires_while(&cluster, alert, more).await?;
    }
    for dispatcher in &mut cluster.dispatchers {
        dispatcher.start()?;
    }
    cluster.ready().await?;
    for alert in late {
        watch.fires(&cluster, alert).await?;
    }
    watch.is_well().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_that_fail_are_reported() -> Result {
    let cluster = Cluster::single().await?;
    hook(&cluster, "dying", json!({"retry": []})).await?;
    let breaker = json!({"failures": 3, "failure_rate": 1.0, "open": 2});
    hook(
        &cluster,
        "open",
        json!({"retry": [3, 3, 3], "circuit_breaker": breaker}),
    )
    .await?;
    let watch = Watch::start(&cluster, &[]).await?;
    for path in ["/dying", "/open"] {
        cluster.receiver.answer(path, &[500]);
    }
    for alert in RECEIVERS {
        let more = async || {
            publish(&cluster, "dying", 1).await?;
            publish(&cluster, "open", 3).await
        };
        watch.fires_while(&cluster, alert, more).await?;
    }
    for path in ["/dying", "/open"] {
        cluster.receiver.answer(path, &[200]);
    }
    watch.is_well().await?;
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_away_are_reported() -> Result {
    let mut cluster = Cluster::single().await?;
    hook(&cluster, "well", json!({})).await?;
    let watch = Watch::start(&cluster, &[]).await?;
    let [page, ticket, nats] = SERVERS;
    cluster.redis.kill();
    watch.fires(&cluster, page).await?;
    let more = async || publish(&cluster, "well", 1).await;
    watch.fires_while(&cluster, ticket, more).await?;
    cluster.redis.start().await?;
    watch.is_well().await?;
    cluster.nats.kill();
    watch.fires(&cluster, nats).await?;
    cluster.nats.start().await?;
    watch.is_well().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatchers_that_settle_nothing_are_reported() -> Result {
    const MORE_THAN_PERMITS: usize = 1_200;
    let mut cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_REDIS_REQUIRED", "true")
        .start()
        .await?;
    hook(&cluster, "well", json!({})).await?;
    let watch = Watch::start(&cluster, &[]).await?;
    cluster.redis.kill();
    publish(&cluster, "well", MORE_THAN_PERMITS).await?;
    watch.fires(&cluster, REQUIRED[0]).await?;
    cluster.redis.start().await?;
    cluster
        .receiver
        .wait_for("/well", MORE_THAN_PERMITS)
        .await?;
    watch.is_well().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_fill_up_are_reported() -> Result {
    let mut cluster = Cluster::single().await?;
    hook(&cluster, "well", json!({})).await?;
    hook(&cluster, "dying", json!({"retry": []})).await?;
    let watch = Watch::start(&cluster, &[]).await?;
    let [nearly, refused, dead] = STREAMS;
    cluster.nats.set_max_bytes(wire::EVENTS, 1 << 20).await?;
    cluster.dispatchers[0].stop().await?;
    let big = json!({"filler": "x".repeat(95_000)});
    for _ in 0..10 {
        cluster.publish("alerts", "well", &big).await?;
    }
    watch.fires(&cluster, nearly).await?;
    watch.fires(&cluster, refused).await?;
    cluster.dispatchers[0].start()?;
    cluster.ready().await?;
    cluster.receiver.wait_for("/well", 10).await?;
    watch.is_well().await?;

    cluster.nats.set_max_bytes(wire::DEAD, 1).await?;
    cluster.receiver.answer("/dying", &[500]);
    let more = async || publish(&cluster, "dying", 1).await;
    watch.fires_while(&cluster, dead, more).await?;
    cluster.nats.set_max_bytes(wire::DEAD, 1 << 30).await?;
    cluster.receiver.answer("/dying", &[200]);
    watch.is_well().await?;
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_that_runs_out_is_reported() -> Result {
    let cluster = Cluster::builder()
        .nats_store(Store::Account(64 << 20))
        .gateway_env("HOOKLINE_EVENTS_MAX_BYTES", "8388608")
        .dispatcher_env("HOOKLINE_EVENTS_MAX_BYTES", "8388608")
        .start()
        .await?;
    let watch = Watch::start(&cluster, &[]).await?;
    let jetstream = cluster.nats.jetstream();
    cluster.nats.fill(54).await?;
    watch.fires(&cluster, STORAGE[0]).await?;
    jetstream.delete_stream("FILL").await?;
    watch.is_well().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_does_not_end_and_levels_that_are_missing_are_reported() -> Result {
    let mut cluster = Cluster::single().await?;
    // A dispatcher's metrics, as one of another version would show them.
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = other.local_addr()?.to_string();
    let metrics = cluster.dispatchers[0].metrics().await?;
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    ensure!(metrics.contains(&version), "no {version}");
    let metrics = metrics.replace(&version, "version=\"0.0.9\"");
    let routes = axum::Router::new().route("/metrics", axum::routing::get(async || metrics));
    let serving = tokio::spawn(async { axum::serve(other, routes).await });
    let [mixed, absent] = PROCESSES;
    let prometheus = Prometheus::start(&cluster, &[&address]).await?;
    let watch = Watch { prometheus };
    watch.fires(&cluster, mixed).await?;
    serving.abort();
    watch.is_over(mixed.0).await?;
    drop(watch);

    let watch = Watch::start(&cluster, &[]).await?;
    let right = "$JS.API.CONSUMER.INFO.HOOKLINE_EVENTS.dispatchers";
    cluster.nats.forbid("gateway", right)?;
    cluster.nats.kill();
    cluster.nats.start().await?;
    watch.fires(&cluster, absent).await?;
    // Its log has what is forbidden, which a cluster must not end with.
    Ok(())
}
