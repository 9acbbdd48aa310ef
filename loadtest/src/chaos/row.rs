//! The result of one fault: compares its ledgers with what must hold.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::endpoint::Endpoint;
use super::ledger::{Entry, percentile};
use super::load::Offered;

/// Percentage of the load that must have been sent for a row to count.
const SENT_PERCENT: u64 = 95;
/// Unexplained repeats to list one by one.
const LISTED: usize = 5;

/// What a fault's run observed, and which repeats the fault explains.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Proof that the fault happened; `None` fails the row.
    pub observed: Option<String>,
    /// Deliveries that first arrived in one of these spans may repeat.
    pub repeats: Vec<(Instant, Instant)>,
    /// Further requirements that did not hold.
    pub broken: Vec<String>,
    pub dead: u64,
    /// For the plot: seconds since the start, and a label.
    pub marks: Vec<(f64, String)>,
    /// Whether any repeats are allowed.
    pub allows_repeats: bool,
    /// The healthy hooks' p99 without and beside the sick ones, where compared.
    pub compared: Option<(Duration, Duration)>,
}

impl Evidence {
    pub fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }

    /// Marks this moment in the plot.
    pub fn mark(&mut self, began: Instant, what: &str) {
        let at = began.elapsed().as_secs_f64();
        self.marks.push((at, what.to_owned()));
    }
}

#[derive(Debug, Clone, Default)]
pub struct Row {
    pub fault: String,
    /// Events that NATS acknowledged.
    pub sent: usize,
    pub delivered: usize,
    pub missing: usize,
    /// Deliveries that arrived more than once.
    pub duplicate: usize,
    pub dead: u64,
    /// 99th percentile of the time from publishing to arrival.
    pub late_p99: Duration,
    /// Its maximum.
    pub late_max: Duration,
    /// Requirements that did not hold.
    pub broken: Vec<String>,
    pub observed: String,
    /// Seconds from the start to publishing, and milliseconds from publishing to arrival.
    pub points: Vec<(f64, f64)>,
    /// Seconds from the start to each arrival.
    pub arrivals: Vec<f64>,
    /// Seconds since the start, and a label.
    pub marks: Vec<(f64, String)>,
    pub compared: Option<(Duration, Duration)>,
}

impl Row {
    /// A row whose run failed.
    #[must_use]
    pub fn unfinished(fault: &str, error: String) -> Self {
        Self {
            fault: fault.to_owned(),
            broken: vec![error],
            ..Self::default()
        }
    }

    /// Compares the endpoints' ledgers with what must hold for every fault, and adds the fault's own
    /// evidence.
    #[must_use]
    pub fn reconcile(
        fault: &str,
        endpoints: &[&Endpoint],
        offered: Offered,
        evidence: Evidence,
        began: Instant,
    ) -> Self {
        let entries: Vec<Entry> = endpoints
            .iter()
            .flat_map(|endpoint| endpoint.ledger.entries())
            .collect();
        let delivered = entries.iter().filter(|entry| entry.first.is_some()).count();
        let repeated: Vec<_> = entries
            .iter()
            .filter(|entry| !entry.again.is_empty())
            .collect();
        let latencies: Vec<_> = entries.iter().filter_map(Entry::latency).collect();
        let mut row = Self {
            fault: fault.to_owned(),
            sent: entries.len(),
            delivered,
            missing: entries.len() - delivered,
            duplicate: repeated.len(),
            dead: evidence.dead,
            late_p99: percentile(latencies.clone(), 99.0),
            late_max: percentile(latencies, 100.0),
            broken: evidence.broken,
            observed: evidence.observed.clone().unwrap_or_default(),
            points: points(&entries, began),
            arrivals: arrivals(&entries, began),
            marks: evidence.marks,
            compared: evidence.compared,
        };
        let mut require = |holds: bool, what: String| {
            if !holds {
                row.broken.push(what);
            }
        };
        require(
            evidence.observed.is_some(),
            "the fault was not seen to happen".to_owned(),
        );
        require(
            offered.events * 100 >= offered.asked * SENT_PERCENT,
            format!(
                "only {} of {} events were sent",
                offered.events, offered.asked
            ),
        );
        let missing = entries.len() - delivered;
        require(missing == 0, format!("{missing} deliveries are missing"));
        let forged: u64 = endpoints.iter().map(|endpoint| endpoint.forged()).sum();
        require(forged == 0, format!("{forged} signatures are wrong"));
        let renamed = repeated.iter().filter(|entry| entry.other_id).count();
        require(
            renamed == 0,
            format!("{renamed} repeats have another webhook-id"),
        );
        let unexplained: Vec<_> = repeated
            .iter()
            .filter(|entry| !evidence.allows_repeats || !explained(entry, &evidence.repeats))
            .map(|entry| arrivals_of(entry, began))
            .collect();
        require(
            unexplained.is_empty(),
            format!(
                "{} repeats have no explanation: {}",
                unexplained.len(),
                unexplained[..unexplained.len().min(LISTED)].join(", ")
            ),
        );
        row
    }

    #[must_use]
    pub fn passed(&self) -> bool {
        self.broken.is_empty()
    }

    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "fault": self.fault, "sent": self.sent, "delivered": self.delivered,
            "missing": self.missing, "duplicate": self.duplicate, "dead": self.dead,
            "late_p99_ms": self.late_p99.as_secs_f64() * 1_000.0,
            "late_max_ms": self.late_max.as_secs_f64() * 1_000.0,
            "passed": self.passed(), "observed": self.observed, "broken": self.broken,
        })
    }
}

/// Whether the first arrival falls into one of the spans.
fn explained(entry: &Entry, times: &[(Instant, Instant)]) -> bool {
    entry.first.is_some_and(|first| {
        times
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&first))
    })
}

/// All arrivals, in seconds since the start.
fn arrivals_of(entry: &Entry, began: Instant) -> String {
    let arrivals = entry.first.iter().chain(&entry.again);
    let seconds = arrivals.map(|at| {
        let at = at.saturating_duration_since(began);
        format!("{:.3} s", at.as_secs_f64())
    });
    seconds.collect::<Vec<_>>().join(" and ")
}

fn points(entries: &[Entry], began: Instant) -> Vec<(f64, f64)> {
    let point = |entry: &Entry| {
        let at = entry.published?.saturating_duration_since(began);
        Some((at.as_secs_f64(), entry.latency()?.as_secs_f64() * 1_000.0))
    };
    entries.iter().filter_map(point).collect()
}

fn arrivals(entries: &[Entry], began: Instant) -> Vec<f64> {
    let all = entries
        .iter()
        .flat_map(|entry| entry.first.iter().chain(&entry.again));
    all.map(|at| at.saturating_duration_since(began).as_secs_f64())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::endpoint::Mood;

    #[tokio::test]
    async fn a_repeat_needs_a_time_that_explains_it() {
        let endpoint = Endpoint::start(Mood::Well).await.expect("an endpoint");
        endpoint.ledger.published(0);
        endpoint.ledger.acknowledged(0);
        let began = Instant::now();
        for _ in 0..2 {
            endpoint.ledger.arrived(0, "a");
        }
        let broken = |repeats| {
            let evidence = Evidence {
                observed: Some("it happened".to_owned()),
                allows_repeats: true,
                repeats,
                ..Evidence::default()
            };
            let offered = Offered {
                events: 1,
                asked: 1,
            };
            Row::reconcile("fault", &[&endpoint], offered, evidence, began).broken
        };
        let hour = Duration::from_secs(3_600);
        assert_eq!(broken(vec![(began, began + hour)]), [""; 0]);
        let later = (began + hour, began + 2 * hour);
        let listed = broken(vec![later]);
        let start = "1 repeats have no explanation: ";
        assert!(
            listed.len() == 1 && listed[0].starts_with(start),
            "{listed:?}"
        );
        assert_eq!(listed[0].matches(" s").count(), 2, "{listed:?}");
    }
}
