//! The dashboards that are shipped: every query of every panel has data after a minute of load and faults, from a real
//! Prometheus, and counters are what the load was.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Leftovers, Prometheus, Result, SOON, binaries, eventually, wait, wire};
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);
/// Between two events of the load.
const PACE: Duration = Duration::from_millis(40);

/// Queries that may have no data, by dashboard, panel and letter, and why.
const MAY_BE_EMPTY: [(&str, &str, &str, &str); 0] = [];

struct Query {
    dashboard: String,
    panel: String,
    letter: String,
    text: String,
}

fn dashboards() -> Result<Vec<(PathBuf, Value)>> {
    let folder = binaries::workspace().join("deploy/grafana/dashboards");
    let mut dashboards = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        let dashboard = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        dashboards.push((path, dashboard));
    }
    Ok(dashboards)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Every query of every panel, of folded rows too, and of the variables.
fn queries(hook: &str) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for (path, dashboard) in dashboards()? {
        let uid = text(&dashboard["uid"]);
        let mut panels: Vec<&Value> = dashboard["panels"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        ensure!(!panels.is_empty(), "{} has no panels", path.display());
        while let Some(panel) = panels.pop() {
            panels.extend(panel["panels"].as_array().into_iter().flatten());
            for target in panel["targets"].as_array().into_iter().flatten() {
                queries.push(Query {
                    dashboard: uid.clone(),
                    panel: text(&panel["title"]),
                    letter: text(&target["refId"]),
                    text: filled(&text(&target["expr"]), hook),
                });
            }
        }
        for variable in dashboard["templating"]["list"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let query = match &variable["query"] {
                Value::Object(query) => text(&query["query"]),
                query => text(query),
            };
            let Some(inner) = query.strip_prefix("label_values(") else {
                continue;
            };
            let (series, label) = inner
                .trim_end_matches(')')
                .rsplit_once(',')
                .context("a label")?;
            let label = label.trim();
            queries.push(Query {
                dashboard: uid.clone(),
                panel: format!("variable {}", text(&variable["name"])),
                letter: String::new(),
                text: filled(&format!("count by ({label}) ({series})"), hook),
            });
        }
    }
    Ok(queries)
}

/// As Grafana fills in, with everything chosen.
fn filled(query: &str, hook: &str) -> String {
    query
        .replace("$__rate_interval", "8s")
        .replace("$__interval", "2s")
        .replace("$__range", "60s")
        .replace("$job", ".+")
        .replace("$instance", ".+")
        .replace("$hook", hook)
}

struct Load {
    /// A hook that sometimes fails.
    hook: String,
    before: Counts,
}

#[derive(Debug, PartialEq)]
struct Counts {
    matched: f64,
    unmatched: f64,
    malformed: f64,
    /// By all handlers that make requests.
    attempts: f64,
    dead: f64,
    created: f64,
}

async fn counts(prometheus: &Prometheus) -> Result<Counts> {
    let sum = async |series: &str| prometheus.value(&format!("sum({series})")).await;
    let events =
        async |outcome: &str| sum(&format!("hookline_events_total{{outcome=\"{outcome}\"}}")).await;
    Ok(Counts {
        matched: events("matched").await?,
        unmatched: events("unmatched").await?,
        malformed: events("malformed").await?,
        attempts: sum("hookline_attempts_total{handler=~\"webhook.*\"}").await?,
        dead: sum("hookline_dead_letters_total").await?,
        created: sum(
            "hookline_admin_requests_total{kind=\"consumers\",method=\"POST\",status=\"2xx\"}",
        )
        .await?,
    })
}

async fn prepare(cluster: &Cluster, prometheus: &Prometheus) -> Result<Load> {
    let config =
        |path: &str| json!({"url": cluster.receiver.url(path), "method": "POST", "body": "x"});
    let make = async |handler: &str, event: &str, config: Value, more: Value| {
        let mut hook = e2e::admin::hook("load", event, handler, config);
        for (name, value) in more.as_object().into_iter().flatten() {
            hook[name] = value.clone();
        }
        let hook = cluster.admin().create_hook(&hook).await?;
        anyhow::Ok(e2e::admin::id(&hook)?.to_owned())
    };
    make("webhook-custom", "well", config("/well"), json!({})).await?;
    make("log", "well", json!({}), json!({})).await?;
    let script = json!({"functions": ["return function () return true end"]});
    make("lambda", "well", script, json!({})).await?;
    let retry = json!({"delivery": {"retry": [1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]}});
    let hook = make("webhook-custom", "sick", config("/sick"), retry).await?;
    let webhook = json!({ "url": cluster.receiver.url("/hook") });
    make("webhook", "well", webhook, json!({"snooze": 5})).await?;
    let once = json!({"delivery": {"retry": []}});
    make("webhook-custom", "dying", config("/dying"), once).await?;
    let paused = json!({"delivery": {"paused": true}});
    make("log", "paused", json!({}), paused).await?;
    cluster.receiver.wait_for_ping("/hook").await?;
    cluster.rest().await?;
    cluster.receiver.answer("/sick", &[500]);
    cluster.receiver.answer("/dying", &[404]);
    // What is settled is scraped within a second or two.
    wait::let_pass(Duration::from_secs(3)).await;
    let before = eventually(SOON, "all are scraped", async || {
        ensure!(prometheus.value("sum(up)").await? == 3.0);
        counts(prometheus).await
    })
    .await?;
    Ok(Load { hook, before })
}

/// Loads the cluster for a minute, in which Redis is away for some seconds. Returns what it sent.
async fn load(cluster: &mut Cluster) -> Result<Counts> {
    let mut sent = Counts {
        matched: 0.0,
        unmatched: 0.0,
        malformed: 0.0,
        attempts: 0.0,
        dead: 0.0,
        created: 0.0,
    };
    let (began, mut turn) = (Instant::now(), 0_u64);
    let (mut killed, mut started) = (false, false);
    while began.elapsed() < MINUTE {
        turn += 1;
        let event = match turn % 25 {
            7 => "sick",
            11 => "dying",
            13 => "paused",
            17 => "nobody",
            _ => "well",
        };
        cluster
            .publish("load", event, &json!({ "turn": turn }))
            .await?;
        *if event == "nobody" {
            &mut sent.unmatched
        } else {
            &mut sent.matched
        } += 1.0;
        if turn % 100 == 19 {
            let subject = "hookline.events.default.load.well";
            cluster.nats.publish(subject, "no JSON").await?;
            sent.malformed += 1.0;
        }
        if turn % 50 == 23 {
            cluster
                .admin()
                .create_consumer(&format!("c-{turn}"))
                .await?;
            cluster.admin().get("/nothing").await?.expect(404)?;
            sent.created += 1.0;
            // Of `crud` and `dao:crud`.
            sent.unmatched += 2.0;
        }
        let time = began.elapsed();
        if !killed && time > MINUTE / 3 {
            cluster.redis.kill();
            killed = true;
        }
        if !started && time > MINUTE / 2 {
            cluster.redis.start().await?;
            cluster.receiver.answer("/sick", &[200]);
            started = true;
        }
        wait::let_pass(PACE).await;
    }
    Ok(sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_every_panel_has_data_and_counters_are_what_was_sent() -> Result {
    let mut cluster = Cluster::builder()
        .dispatchers(2)
        .dispatcher_env("HOOKLINE_CIRCUIT_BREAKER", "3,1,1s")
        .start()
        .await?;
    let prometheus = Prometheus::start(&cluster, &[]).await?;
    let Load { hook, before } = prepare(&cluster, &prometheus).await?;
    let requests = |cluster: &Cluster| cluster.receiver.all_events().len() as f64;
    let answered = requests(&cluster);
    let sent = load(&mut cluster).await?;

    let mut empty = Vec::new();
    let queries = queries(&hook)?;
    ensure!(queries.len() > 100, "{} queries", queries.len());
    for query in &queries {
        let series = prometheus.range(&query.text, MINUTE).await?;
        let has_data = series
            .iter()
            .flat_map(|series| &series.values)
            .any(|value| value.is_finite());
        let place = (
            query.dashboard.as_str(),
            query.panel.as_str(),
            query.letter.as_str(),
        );
        let may_be = MAY_BE_EMPTY
            .iter()
            .any(|(dashboard, panel, letter, _)| place == (dashboard, panel, letter));
        if !has_data && !may_be {
            empty.push(format!("{place:?}: {}", query.text));
        }
    }
    ensure!(empty.is_empty(), "no data:\n{}", empty.join("\n"));
    for (dashboard, panel, letter, _) in MAY_BE_EMPTY {
        let is_there = |query: &Query| {
            (&*query.dashboard, &*query.panel, &*query.letter) == (dashboard, panel, letter)
        };
        ensure!(
            queries.iter().any(is_there),
            "{dashboard}, {panel}, {letter} is no query"
        );
    }

    eventually(SOON, "counters are what was sent", async || {
        let now = counts(&prometheus).await?;
        let counted = Counts {
            matched: now.matched - before.matched,
            unmatched: now.unmatched - before.unmatched,
            malformed: now.malformed - before.malformed,
            attempts: now.attempts - before.attempts,
            dead: now.dead - before.dead,
            created: now.created - before.created,
        };
        let expected = Counts {
            matched: sent.matched,
            unmatched: sent.unmatched,
            malformed: sent.malformed,
            attempts: requests(&cluster) - answered,
            dead: cluster.nats.count(wire::DEAD).await? as f64,
            created: sent.created,
        };
        ensure!(counted == expected, "{counted:?}, expected {expected:?}");
        Ok(())
    })
    .await?;
    let waiting = prometheus.value("max(hookline_waiting_deliveries)").await?;
    let dead = cluster.nats.count(wire::DEAD).await?;
    let leftovers = Leftovers {
        dead,
        parked: cluster.nats.count(wire::DELIVERIES).await?,
    };
    ensure!(waiting > 0.0, "{leftovers:?}");
    cluster.finish_unchecked().await
}
