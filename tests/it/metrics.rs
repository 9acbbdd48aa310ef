//! Metrics: documented, there from the start, and true.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use e2e::{
    Authority, Cluster, Leftovers, Receiver, Result, SOON, Service, Validity, binaries, eventually,
};
use serde_json::{Value, json};

/// The values of these labels are not listed.
const OPEN_LABELS: [&str; 5] = ["hook", "source", "event", "version", "revision"];

#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    services: BTreeSet<&'static str>,
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn read(text: &str, service: &'static str, families: &mut BTreeMap<String, Family>) {
    for line in text.lines() {
        if let Some((name, help)) = words(line, "# HELP ") {
            families.entry(name).or_default().help = help;
        } else if let Some((name, kind)) = words(line, "# TYPE ") {
            let family = families.entry(name).or_default();
            family.kind = kind;
            family.services.insert(service);
        } else if let Some((name, labels)) = line.split_once('{') {
            let known = |name: &str| families.contains_key(name);
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|base| known(base)));
            let family = families.entry(base.unwrap_or(name).to_owned()).or_default();
            let labels = labels.rsplit_once('}').map_or("", |(labels, _)| labels);
            for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
                let values = family.labels.entry(label.to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
}

fn words(line: &str, start: &str) -> Option<(String, String)> {
    let (name, rest) = line.strip_prefix(start)?.split_once(' ')?;
    Some((name.to_owned(), rest.to_owned()))
}

fn table(families: &BTreeMap<String, Family>) -> String {
    let mut table =
        "| metric | of | type | labels | meaning |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for (name, family) in families {
        let services = match family.services.len() {
            1 => family.services.iter().next().copied().unwrap_or_default(),
            _ => "both",
        };
        let labels: Vec<_> = family
            .labels
            .iter()
            .filter(|(label, _)| *label != "le")
            .map(|(label, values)| {
                let is_info = name == "hookline_hook_info";
                if OPEN_LABELS.contains(&label.as_str()) || is_info {
                    return format!("`{label}`");
                }
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                format!("`{label}`: {}", values.join(", "))
            })
            .collect();
        let (kind, help) = (&family.kind, &family.help);
        let labels = labels.join("; ");
        table.push_str(&format!(
            "| `{name}` | {services} | {kind} | {labels} | {help} |\n"
        ));
    }
    table
}

async fn scrape(gateway: &Service, dispatcher: &Service) -> Result<BTreeMap<String, Family>> {
    let mut families = BTreeMap::new();
    read(&gateway.metrics().await?, "gateway", &mut families);
    read(&dispatcher.metrics().await?, "dispatcher", &mut families);
    Ok(families)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_documented() -> Result {
    let cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let families = scrape(&cluster.gateways[0], &cluster.dispatchers[0]).await?;
    let want = table(&families);
    let path = binaries::workspace().join("docs/metrics.md");
    let written = std::fs::read_to_string(path)?;
    let start = written.find("| metric |").unwrap_or(written.len());
    ensure!(
        written[start..] == want,
        "docs/metrics.md, from its table on, should be:\n{want}"
    );
    cluster.finish().await
}

/// Names and labels of the counters in a scrape, those of single hooks aside.
fn counters(text: &str) -> BTreeSet<String> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series.to_owned())
        .filter(|series| {
            let name = series.split('{').next().unwrap_or_default();
            let counts = ["_total", "_bucket", "_count", "_sum"];
            counts.iter().any(|end| name.ends_with(end)) && !name.starts_with("hookline_hook_")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_counter_is_there_before_its_first_count() -> Result {
    let mut cluster = Cluster::builder().prepare().await?;
    let gateway = &mut cluster.gateways[0];
    gateway.start()?;
    let born = eventually(SOON, "the gateway serves metrics", async || {
        Ok(counters(&gateway.metrics().await?))
    });
    let mut born = born.await?;
    let dispatcher = &mut cluster.dispatchers[0];
    dispatcher.start()?;
    let of_dispatcher = eventually(SOON, "the dispatcher serves metrics", async || {
        Ok(counters(&dispatcher.metrics().await?))
    });
    born.extend(of_dispatcher.await?);
    cluster.nats.start().await?;
    cluster.redis.start().await?;
    cluster.ready().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.admin().create_consumer("Ada").await?;
    cluster.receiver.wait_for_one("/hook").await?;
    cluster.admin().get("/nothing").await?.expect(404)?;
    cluster.rest().await?;

    let mut now = counters(&cluster.gateways[0].metrics().await?);
    now.extend(counters(&cluster.dispatchers[0].metrics().await?));
    let young: Vec<_> = now.difference(&born).collect();
    ensure!(young.is_empty(), "born later: {young:?}");
    ensure!(born.len() > 500, "{} series", born.len());
    cluster.finish().await
}

const ATTEMPTS: &str = "hookline_attempts_total";
const DEAD: &str = "hookline_dead_letters_total";
const DELIVERIES: &str = "hookline_deliveries_total";

/// Handler, config, result of the attempt, and reason of death.
type Case = (&'static str, Value, &'static str, Option<&'static str>);

/// `closed` and `expired`: a port that nobody listens to, and one with such a certificate.
fn cases(receiver: &Receiver, closed: u16, expired: u16) -> Vec<Case> {
    let request = |url: &str| json!({"url": url, "method": "POST", "body": "x"});
    let at = |path: &str| request(&receiver.url(path));
    let script = |code: &str| json!({"functions": [format!("return function () {code} end")]});
    let template = json!({"url": receiver.url("/x"), "method": "POST",
        "body": "{{ 'x' * 100000000 }}"});
    vec![
        ("webhook-custom", at("/200"), "success", None),
        ("webhook-custom", at("/302"), "http_3xx", Some("refused")),
        ("webhook-custom", at("/404"), "http_4xx", Some("refused")),
        ("webhook-custom", at("/410"), "http_4xx", Some("gone")),
        ("webhook-custom", at("/503"), "http_5xx", Some("exhausted")),
        ("webhook-custom", at("/slow"), "timeout", Some("exhausted")),
        (
            "webhook-custom",
            request(&format!("http://127.0.0.1:{closed}/")),
            "connect",
            Some("exhausted"),
        ),
        (
            "webhook-custom",
            request(&format!("https://localhost:{}/", expired)),
            "tls",
            Some("exhausted"),
        ),
        (
            "webhook-custom",
            request("http://nobody.invalid/"),
            "dns",
            Some("exhausted"),
        ),
        // Through a proxy that is not there.
        (
            "webhook-custom",
            request("http://192.0.2.1/"),
            "proxy",
            Some("exhausted"),
        ),
        (
            "webhook-custom",
            request("http://10.0.0.1/"),
            "egress",
            Some("egress"),
        ),
        ("webhook-custom", template, "template", Some("template")),
        ("lambda", script("return true"), "success", None),
        ("lambda", script("error('no')"), "script", Some("script")),
        (
            "lambda",
            script("return false"),
            "script",
            Some("exhausted"),
        ),
        ("log", json!({}), "success", None),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_has_its_result_and_its_reason_of_death() -> Result {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path())?;
    let closed = e2e::ports::free()?;
    let cluster = Cluster::builder()
        .dispatcher_env("SSL_CERT_FILE", &authority.file().display().to_string())
        .dispatcher_env("HOOKLINE_TIMEOUT", "1s")
        .dispatcher_env("HOOKLINE_EGRESS_ALLOW", "127.0.0.0/8,::1/128,192.0.2.0/24")
        .dispatcher_env("HOOKLINE_PROXY", &format!("http://127.0.0.1:{closed}"))
        .dispatcher_env("HOOKLINE_NO_PROXY", "127.0.0.1,localhost,nobody.invalid")
        .start()
        .await?;
    let receiver = &cluster.receiver;
    let expired = authority.front(receiver.port(), Validity::Expired).await?;
    for (path, status) in [("/302", 302), ("/404", 404), ("/410", 410), ("/503", 503)] {
        receiver.answer(path, &[status]);
    }
    receiver.delay("/slow", 10 * SOON);
    let cases = cases(receiver, closed, expired.port());
    for (handler, config, ..) in &cases {
        let mut hook = e2e::admin::hook("here", "there", handler, config.clone());
        hook["delivery"] = json!({ "retry": [] });
        cluster.admin().create_hook(&hook).await?;
    }
    cluster.publish("here", "there", &json!({})).await?;
    cluster
        .nats
        .publish("hookline.events.default.here.there", "no JSON")
        .await?;
    let died = cases.iter().filter(|case| case.3.is_some()).count() as u64;
    let leftovers = Leftovers {
        dead: died + 1,
        parked: 0,
    };
    cluster.rest_leaving(leftovers).await?;

    let mut expected: BTreeMap<(&str, &str, &str), f64> = BTreeMap::new();
    let mut count =
        |metric, label, value| *expected.entry((metric, label, value)).or_default() += 1.0;
    for (_, _, result, death) in &cases {
        count(ATTEMPTS, "result", *result);
        count(DELIVERIES, "outcome", death.map_or("delivered", |_| "dead"));
        if let Some(death) = death {
            count(DEAD, "reason", *death);
        }
    }
    count(DEAD, "reason", "not_an_event");
    let metrics = cluster.dispatchers[0].metrics().await?;
    let value = |name: &str, labels: &[(&str, &str)]| e2e::metrics::sum(&metrics, name, labels);
    for ((metric, label, of), expected) in &expected {
        let counted = value(metric, &[(*label, *of)]);
        ensure!(
            counted == *expected,
            "{metric} {of}: {counted}, expected {expected}"
        );
    }
    let attempts = value(ATTEMPTS, &[]);
    assert_eq!(attempts, cases.len() as f64);
    // Those that reached nobody have no duration.
    let timed = value("hookline_attempt_duration_seconds_count", &[]);
    assert_eq!(timed, attempts - 2.0);
    let lag = value(
        "hookline_delivery_lag_seconds_count",
        &[("attempt", "first")],
    );
    assert_eq!(lag, 3.0);
    // The sum of all hooks is the same, whoever has series of its own.
    let of_hooks = value("hookline_hook_attempts_total", &[]);
    assert_eq!(of_hooks, attempts);
    let of_hooks = value("hookline_hook_deliveries_total", &[("outcome", "dead")]);
    assert_eq!(of_hooks, died as f64);
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_seen_by_gateways_while_no_dispatcher_lives() -> Result {
    const EVENTS: usize = 7;
    let mut cluster = Cluster::single().await?;
    cluster.webhook("/hook").await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    let paused = json!({"source": "later", "event": "on", "handler": "log",
        "delivery": {"paused": true}});
    cluster.admin().create_hook(&paused).await?;
    cluster.publish("later", "on", &json!({})).await?;
    let parked = Leftovers { dead: 0, parked: 1 };
    cluster.rest_leaving(parked).await?;
    assert_eq!(
        cluster
            .dispatchers_metric("hookline_hooks_paused", &[])
            .await?,
        1.0
    );
    cluster.dispatchers[0].stop().await?;
    for _ in 0..EVENTS {
        cluster.publish("crud", "consumers", &json!({})).await?;
    }
    let of_events = [("consumer", "dispatchers")];
    let gateway = async |name: &str, labels: &[_]| cluster.gateways[0].metric(name, labels).await;
    eventually(SOON, "the gateway shows what waits", async || {
        let pending = gateway("hookline_consumer_pending_messages", &of_events).await?;
        ensure!(pending == EVENTS as f64, "{pending} pending");
        let waiting = gateway("hookline_waiting_deliveries", &[]).await?;
        ensure!(waiting == 1.0, "{waiting} waiting");
        Ok(())
    })
    .await?;
    let age = async || gateway("hookline_oldest_event_age_seconds", &[]).await;
    let before = age().await?;
    ensure!(before > 0.0, "the oldest event has no age");

    // Without NATS ages grow, and amounts are no longer shown once they are too old.
    cluster.nats.kill();
    eventually(4 * SOON, "amounts are not shown", async || {
        let text = cluster.gateways[0].metrics().await?;
        ensure!(!text.contains("hookline_waiting_deliveries "), "they are");
        Ok(())
    })
    .await?;
    let grown = age().await? - before;
    ensure!(grown > 20.0, "it grew by {grown} s");
    let connected = cluster.gateways[0].metric("hookline_nats_connected", &[]);
    assert_eq!(connected.await?, 0.0);

    cluster.nats.start().await?;
    cluster.dispatchers[0].start()?;
    cluster.ready().await?;
    cluster.receiver.wait_for("/hook", EVENTS).await?;
    eventually(SOON, "nothing waits any more", async || {
        let age = cluster.gateways[0].metric("hookline_oldest_event_age_seconds", &[]);
        ensure!(age.await? == 0.0);
        let reconnects = cluster.gateways[0].metric("hookline_nats_reconnects_total", &[]);
        ensure!(reconnects.await? > 0.0);
        Ok(())
    })
    .await?;
    cluster.finish_leaving(parked).await
}
