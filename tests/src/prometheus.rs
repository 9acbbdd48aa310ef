//! A real Prometheus with the rules that are shipped, which scrapes every second.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;
use serde_json::Value;

use crate::process::Process;
use crate::{Cluster, SOON, admin, binaries, eventually, ports};

/// In seconds. Rates need some scrapes.
const SHORTEST_RANGE: u64 = 8;
const LONGEST_RANGE: u64 = 30;

#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    url: String,
    http: Client,
}

/// A series and its value, or its values by time.
#[derive(Debug, Clone)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub values: Vec<f64>,
}

impl Prometheus {
    /// Scrapes all services of a cluster, and `more` dispatchers. Durations and thresholds of rules are shortened: what
    /// takes minutes takes seconds.
    pub async fn start(cluster: &Cluster, more: &[&str]) -> Result<Self> {
        let port = ports::free()?;
        let dir = cluster.dir().join(format!("prometheus-{port}"));
        std::fs::create_dir_all(dir.join("rules"))?;
        for rules in ["recording.yml", "alerts.yml"] {
            let shipped = std::fs::read_to_string(shipped_rules().join(rules))?;
            std::fs::write(dir.join("rules").join(rules), shortened(&shipped))?;
        }
        let gateways = cluster
            .gateways
            .iter()
            .map(|service| service.status_address());
        let dispatchers = cluster.dispatchers.iter();
        let dispatchers = dispatchers.map(|service| service.status_address());
        let job = |name: &str, targets: Vec<&str>| {
            format!("  - job_name: {name}\n    static_configs: [{{ targets: {targets:?} }}]\n")
        };
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [rules/*.yml]\nscrape_configs:\n{}{}",
            job("hookline-gateway", gateways.collect()),
            job(
                "hookline-dispatcher",
                dispatchers.chain(more.iter().copied()).collect()
            ),
        );
        std::fs::write(dir.join("prometheus.yml"), config)?;
        let program = binaries::server("prometheus")?;
        let mut process = Process::new("prometheus", program, cluster.dir()).args([
            format!("--config.file={}", dir.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ]);
        process.start()?;
        let prometheus = Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            http: admin::http_client()?,
        };
        eventually(SOON, "Prometheus is ready", async || {
            let ready = prometheus.http.get(format!("{}/-/ready", prometheus.url));
            ready.send().await?.error_for_status()?;
            Ok(())
        })
        .await
        .with_context(|| prometheus.process.log())?;
        Ok(prometheus)
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn ask(&self, path: &str, parameters: &[(&str, String)]) -> Result<Value> {
        let url = format!("{}/api/v1/{path}", self.url);
        let answer = self.http.post(url).form(parameters).send().await?;
        let answer: Value = answer.json().await?;
        ensure!(answer["status"] == "success", "{parameters:?}: {answer}");
        Ok(answer["data"].clone())
    }

    /// The series of a query now.
    pub async fn query(&self, query: &str) -> Result<Vec<Series>> {
        let data = self.ask("query", &[("query", query.to_owned())]).await?;
        Ok(series(&data))
    }

    /// The value of a query with one series.
    pub async fn value(&self, query: &str) -> Result<f64> {
        let series = self.query(query).await?;
        ensure!(series.len() == 1, "{query}: {series:?}");
        Ok(series[0].values[0])
    }

    /// The series of a query in the time before now.
    pub async fn range(&self, query: &str, time: Duration) -> Result<Vec<Series>> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        let parameters = [
            ("query", query.to_owned()),
            ("start", seconds(now.saturating_sub(time))),
            ("end", seconds(now)),
            ("step", "1".to_owned()),
        ];
        Ok(series(&self.ask("query_range", &parameters).await?))
    }

    /// Names and severities of the alerts that fire.
    pub async fn firing(&self) -> Result<BTreeSet<(String, String)>> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}").await?;
        let label = |series: &Series, name: &str| {
            let label = series.labels.get(name);
            label.cloned().unwrap_or_default()
        };
        let names = alerts
            .iter()
            .map(|alert| (label(alert, "alertname"), label(alert, "severity")));
        Ok(names.collect())
    }
}

/// Where the rules that are shipped are.
#[must_use]
pub fn shipped_rules() -> std::path::PathBuf {
    let workspace: &Path = binaries::workspace();
    workspace.join("deploy/prometheus/rules")
}

fn series(data: &Value) -> Vec<Series> {
    let number = |sample: &Value| sample[1].as_str()?.parse().ok();
    let all = data["result"].as_array().into_iter().flatten();
    all.map(|series| {
        let labels = series["metric"].as_object().into_iter().flatten();
        let labels =
            labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        let values = series["values"].as_array();
        let values = values.map_or_else(
            || number(&series["value"]).into_iter().collect(),
            |values| values.iter().filter_map(number).collect(),
        );
        Series {
            labels: labels.collect(),
            values,
        }
    })
    .collect()
}

/// Rules with seconds in place of minutes, and a backlog of ten in place of ten thousand.
fn shortened(rules: &str) -> String {
    let rules = rules.replace(" * 60", " * 1").replace("> 10000", "> 10");
    let mut short = String::new();
    for line in rules.lines() {
        if let Some((indent, time)) = line
            .split_once("for: ")
            .filter(|(i, _)| i.trim().is_empty())
        {
            let time = if time == "0m" { "0s" } else { "2s" };
            short.push_str(&format!("{indent}for: {time}\n"));
            continue;
        }
        let mut parts = line.split('[');
        short.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let range = part.split_once(']').and_then(|(range, rest)| {
                let (number, unit) = range.split_at(range.len().checked_sub(1)?);
                let minutes = number.parse::<u64>().ok()? * if unit == "h" { 60 } else { 1 };
                Some((minutes.clamp(SHORTEST_RANGE, LONGEST_RANGE), rest))
            });
            match range {
                Some((seconds, rest)) => short.push_str(&format!("[{seconds}s]{rest}")),
                None => short.push_str(&format!("[{part}")),
            }
        }
        short.push('\n');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shortened_and_otherwise_left_alone() {
        let rules = "        for: 2m\n        for: 0m\n expr: rate(a{b=~\"[x]\"}[5m]) > 0.01 and c[6h] > 5 * 60 or d > 10000\n";
        let short = "        for: 2s\n        for: 0s\n expr: rate(a{b=~\"[x]\"}[8s]) > 0.01 and c[30s] > 5 * 1 or d > 10\n";
        assert_eq!(shortened(rules), short);
    }
}
