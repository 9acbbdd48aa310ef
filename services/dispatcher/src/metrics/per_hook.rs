//! Series of single hooks: of the oldest ones, up to a number, and of all others together as `other`. Every worker
//! chooses the same, so that sums over workers are right. Who comes to have series of its own starts from 0.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hookline_shared::clock;
use hookline_shared::metrics::{Each, Register};
use parking_lot::Mutex;
use prometheus::{CounterVec, GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts};

use super::labels::{AttemptResult, Outcome};

const OTHER: &str = "other";
/// The outcomes of deliveries whose hook is known.
const OUTCOMES: [Outcome; 5] = [
    Outcome::Delivered,
    Outcome::Dead,
    Outcome::Duplicate,
    Outcome::Snoozed,
    Outcome::Unchanged,
];
const SUCCESS: &str = "success";
const FAILURE: &str = "failure";
/// Of the text of a label.
const MAX_CHARS: usize = 64;

/// Clones share it. None: no hook has series.
#[derive(Debug, Clone)]
pub(crate) struct PerHook(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    most: usize,
    /// All hooks by age.
    known: Mutex<BTreeSet<Ranked>>,
    chosen: ArcSwap<HashMap<Arc<str>, Series>>,
    other: Series,
    families: Families,
}

/// The sequence of the hook's creation, and its id.
type Ranked = (u64, Arc<str>);

/// What a hook is, as labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) handler: &'a str,
    pub(crate) source: &'a str,
    /// Empty: all.
    pub(crate) event: &'a str,
}

#[derive(Debug)]
struct Families {
    outcomes: IntCounterVec,
    attempts: IntCounterVec,
    seconds: CounterVec,
    parked: IntCounterVec,
    last_success: IntGaugeVec,
    info: GaugeVec,
}

/// Of one hook.
#[derive(Debug, Clone)]
struct Series {
    outcomes: Each<Outcome, IntCounter>,
    successes: IntCounter,
    failures: IntCounter,
    seconds: prometheus::Counter,
    parked: IntCounter,
    last_success: prometheus::IntGauge,
    /// The labels of its line of information.
    info: Option<[String; 4]>,
}

impl PerHook {
    pub(super) fn register(new: &Register<'_>, most: usize) -> Result<Self, prometheus::Error> {
        if most == 0 {
            return Ok(Self(None));
        }
        let families = Families::register(new)?;
        Ok(Self(Some(Arc::new(Inner {
            most,
            known: Mutex::default(),
            chosen: ArcSwap::default(),
            other: families.series(OTHER, None),
            families,
        }))))
    }

    pub(crate) fn add(&self, created: u64, hook: &Arc<str>) {
        if let Some(inner) = &self.0 {
            inner.known.lock().insert((created, Arc::clone(hook)));
        }
    }

    pub(crate) fn remove(&self, created: u64, hook: &Arc<str>) {
        if let Some(inner) = &self.0 {
            inner.known.lock().remove(&(created, Arc::clone(hook)));
        }
    }

    pub(crate) fn clear(&self) {
        if let Some(inner) = &self.0 {
            inner.known.lock().clear();
        }
    }

    /// Recomputes the choice after hooks were added or removed.
    pub(crate) fn choose<'a>(&self, about: impl Fn(&str) -> Option<About<'a>>) {
        let Some(inner) = &self.0 else { return };
        let known = inner.known.lock();
        let oldest = known.iter().take(inner.most).map(|(_, hook)| hook);
        let before = inner.chosen.load_full();
        let mut chosen = HashMap::new();
        for hook in oldest {
            let Some(about) = about(hook) else { continue };
            let labels = about.labels(hook);
            let series = match before.get(hook) {
                Some(series) if series.info.as_ref() == Some(&labels) => series.clone(),
                changed => {
                    if let Some(series) = changed {
                        inner.families.forget_info(series);
                    }
                    inner.families.series(hook, Some(labels))
                }
            };
            chosen.insert(Arc::clone(hook), series);
        }
        for (hook, series) in &*before {
            if !chosen.contains_key(hook) {
                inner.families.forget(hook, series);
            }
        }
        inner.chosen.store(Arc::new(chosen));
    }

    /// Those with series of their own; None: no hook has series.
    pub(crate) fn chosen(&self) -> Option<Vec<Arc<str>>> {
        let inner = self.0.as_ref()?;
        Some(inner.chosen.load().keys().cloned().collect())
    }

    pub(super) fn ended(&self, hook: &str, outcome: Outcome) {
        self.with(hook, |series| {
            series.outcomes.get(outcome).inc();
            if outcome == Outcome::Delivered {
                let now = clock::unix_millis() / 1_000;
                series.last_success.set(now as i64);
            }
        });
    }

    pub(super) fn attempt(&self, hook: &str, result: AttemptResult, took: Duration) {
        self.with(hook, |series| {
            match result {
                AttemptResult::Success => series.successes.inc(),
                _ => series.failures.inc(),
            }
            series.seconds.inc_by(took.as_secs_f64());
        });
    }

    pub(super) fn parked(&self, hook: &str) {
        self.with(hook, |series| series.parked.inc());
    }

    fn with(&self, hook: &str, count: impl Fn(&Series)) {
        if let Some(inner) = &self.0 {
            count(inner.chosen.load().get(hook).unwrap_or(&inner.other));
        }
    }
}

impl About<'_> {
    fn labels(&self, hook: &str) -> [String; 4] {
        [hook, self.handler, self.source, self.event]
            .map(|text| text.chars().take(MAX_CHARS).collect())
    }
}

impl Families {
    fn register(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            new.add(IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            outcomes: counters(
                "hookline_hook_deliveries_total",
                "Deliveries of single hooks that ended, by outcome",
                &["hook", "outcome"],
            )?,
            attempts: counters(
                "hookline_hook_attempts_total",
                "Attempts of single hooks, by result",
                &["hook", "result"],
            )?,
            seconds: new.add(CounterVec::new(
                Opts::new(
                    "hookline_hook_attempts_seconds_total",
                    "Time that attempts of single hooks took; by their number it is the mean",
                ),
                &["hook"],
            )?)?,
            parked: counters(
                "hookline_hook_deliveries_parked_total",
                "Deliveries of single hooks stored to wait",
                &["hook"],
            )?,
            last_success: new.add(IntGaugeVec::new(
                Opts::new(
                    "hookline_hook_last_success_timestamp_seconds",
                    "When this worker last made a delivery of a hook, as Unix time; 0: never",
                ),
                &["hook"],
            )?)?,
            info: new.add(GaugeVec::new(
                Opts::new(
                    "hookline_hook_info",
                    "1, with what single hooks are; an empty event means all",
                ),
                &["hook", "handler", "source", "event"],
            )?)?,
        })
    }

    fn series(&self, hook: &str, info: Option<[String; 4]>) -> Series {
        if let Some(info) = &info {
            self.info.with_label_values(info).set(1.0);
        }
        Series {
            outcomes: Each::of(&OUTCOMES, |outcome| {
                self.outcomes.with_label_values(&[hook, outcome.into()])
            }),
            successes: self.attempts.with_label_values(&[hook, SUCCESS]),
            failures: self.attempts.with_label_values(&[hook, FAILURE]),
            seconds: self.seconds.with_label_values(&[hook]),
            parked: self.parked.with_label_values(&[hook]),
            last_success: self.last_success.with_label_values(&[hook]),
            info,
        }
    }

    fn forget_info(&self, series: &Series) {
        if let Some(info) = &series.info {
            let labels = info.each_ref().map(String::as_str);
            let _ = self.info.remove_label_values(&labels);
        }
    }

    fn forget(&self, hook: &str, series: &Series) {
        self.forget_info(series);
        for outcome in OUTCOMES {
            let labels = [hook, outcome.into()];
            let _ = self.outcomes.remove_label_values(&labels);
        }
        for result in [SUCCESS, FAILURE] {
            let _ = self.attempts.remove_label_values(&[hook, result]);
        }
        let _ = self.seconds.remove_label_values(&[hook]);
        let _ = self.parked.remove_label_values(&[hook]);
        let _ = self.last_success.remove_label_values(&[hook]);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn about(_: &str) -> Option<About<'static>> {
        Some(About {
            handler: "log",
            source: "crud",
            event: "",
        })
    }

    fn value(registry: &Registry, series: &str) -> Option<String> {
        let encoder = prometheus::TextEncoder::new();
        let text = encoder.encode_to_string(&registry.gather()).expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(series));
        value.map(|value| value.trim().to_owned())
    }

    #[test]
    fn the_oldest_hooks_have_series_and_the_others_share_one() {
        let registry = Registry::new();
        let hooks = PerHook::register(&Register(&registry), 2).expect("metrics");
        let delivered = |hook: &str| {
            let name = "hookline_hook_deliveries_total";
            let labels = format!("{{hook=\"{hook}\",outcome=\"delivered\"}}");
            value(&registry, &format!("{name}{labels}"))
        };
        let [old, middle, young]: [Arc<str>; 3] = ["a", "b", "c"].map(Arc::from);
        for (created, hook) in [(3, &young), (1, &old), (2, &middle)] {
            hooks.add(created, hook);
        }
        hooks.choose(about);
        assert_eq!(
            delivered("a").as_deref(),
            Some("0"),
            "born before it counts"
        );
        for hook in [&old, &middle, &young] {
            hooks.ended(hook, Outcome::Delivered);
        }
        let all = ["a", "b", "c", OTHER].map(&delivered);
        let all = all.each_ref().map(Option::as_deref);
        assert_eq!(all, [Some("1"), Some("1"), None, Some("1")]);

        hooks.remove(1, &old);
        hooks.choose(about);
        hooks.ended(&young, Outcome::Delivered);
        let all = ["a", "b", "c", OTHER].map(&delivered);
        let all = all.each_ref().map(Option::as_deref);
        assert_eq!(all, [None, Some("1"), Some("1"), Some("1")]);
        let info = value(
            &registry,
            "hookline_hook_info{event=\"\",handler=\"log\",hook=\"a\"",
        );
        assert_eq!(info, None);
    }

    #[test]
    fn without_a_number_there_are_no_series() {
        let registry = Registry::new();
        let hooks = PerHook::register(&Register(&registry), 0).expect("metrics");
        hooks.add(1, &"a".into());
        hooks.choose(about);
        hooks.ended("a", Outcome::Delivered);
        assert_eq!(registry.gather().len(), 0);
        assert!(hooks.chosen().is_none());
    }
}
