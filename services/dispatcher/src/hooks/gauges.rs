//! Gauges of the hooks' state, computed at each scrape.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

use super::Index;
use crate::admission::circuit_breaker::Verdict;
use crate::metrics::PerHook;

pub(crate) struct Gauges {
    index: Weak<Index>,
    per_hook: PerHook,
    circuits_open: IntGauge,
    paused: IntGauge,
    circuit_open: IntGaugeVec,
    /// One scrape at a time.
    scrape: Mutex<()>,
}

impl Gauges {
    pub(crate) fn register(
        registry: &Registry,
        index: &Arc<Index>,
        per_hook: &PerHook,
    ) -> Result<(), prometheus::Error> {
        registry.register(Box::new(Self {
            index: Arc::downgrade(index),
            per_hook: per_hook.clone(),
            circuits_open: IntGauge::new(
                "hookline_circuits_open",
                "Circuits that this worker knows to be open or half-open",
            )?,
            paused: IntGauge::new(
                "hookline_hooks_paused",
                "Hooks that are paused; the same on each worker",
            )?,
            circuit_open: IntGaugeVec::new(
                Opts::new(
                    "hookline_hook_circuit_open",
                    "1 while this worker knows the hook's circuit to be open or half-open; of all others, how many",
                ),
                &["hook"],
            )?,
            scrape: Mutex::default(),
        }))
    }

    fn set(&self, index: &Index) {
        let snapshot = index.snapshot();
        let is_open = |hook: &str| {
            let hook = snapshot.get(hook);
            hook.is_some_and(|hook| hook.admission.circuit.verdict() != Verdict::Closed)
        };
        let (mut open, mut paused) = (0, 0);
        for hook in snapshot.all() {
            open += i64::from(hook.admission.circuit.verdict() != Verdict::Closed);
            paused += i64::from(hook.is_paused());
        }
        self.circuits_open.set(open);
        self.paused.set(paused);
        self.circuit_open.reset();
        let Some(chosen) = self.per_hook.chosen() else {
            return;
        };
        for hook in chosen {
            let is_open = i64::from(is_open(&hook));
            open -= is_open;
            self.circuit_open.with_label_values(&[&*hook]).set(is_open);
        }
        self.circuit_open.with_label_values(&["other"]).set(open);
    }

    fn all(&self) -> [&dyn Collector; 3] {
        [&self.circuits_open, &self.paused, &self.circuit_open]
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one = self.scrape.lock();
        if let Some(index) = self.index.upgrade() {
            self.set(&index);
        }
        let families = self.all().into_iter().flat_map(Collector::collect);
        families
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}
