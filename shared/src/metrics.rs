//! Registers metrics. Counters exist from the start with each value of their labels: one that is born with its first
//! count shows no increase. The values of a label are an enum.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// For what takes less than a second, in seconds.
pub const SHORT: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0,
];
/// For attempts and requests of clients: with the defaults of the time to connect (5 s) and in all (15 s).
pub const ATTEMPT: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0,
];
/// From an event's storage on: the last is the age at which a delivery is dead by default.
pub const LAG: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 300.0, 1_800.0,
    10_800.0, 43_200.0, 259_200.0,
];

/// The values of a label.
pub trait Label: strum::VariantArray + Into<&'static str> + Copy + Eq {}

impl<T: strum::VariantArray + Into<&'static str> + Copy + Eq> Label for T {}

/// A metric for each value of a label.
#[derive(Debug, Clone)]
pub struct Each<L, M>(Box<[(L, M)]>);

impl<L: Copy + Eq, M> Each<L, M> {
    /// # Panics
    /// If the label does not have that value.
    #[must_use]
    pub fn get(&self, value: L) -> &M {
        let found = self.0.iter().find(|(known, _)| *known == value);
        &found.expect("each value has a metric").1
    }

    /// For the values given.
    pub fn of(values: &[L], metric: impl Fn(L) -> M) -> Self {
        Self(
            values
                .iter()
                .map(|value| (*value, metric(*value)))
                .collect(),
        )
    }
}

impl<L: Label, M> Each<L, M> {
    fn all(metric: impl Fn(&'static str) -> M) -> Self {
        Self::of(L::VARIANTS, |value| metric(value.into()))
    }
}

/// Registers metrics in one registry.
#[derive(Debug, Clone, Copy)]
pub struct Register<'a>(pub &'a Registry);

impl Register<'_> {
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    pub fn counters<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<Each<L, IntCounter>, prometheus::Error> {
        let counters = self.add(IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        Ok(Each::all(|value| counters.with_label_values(&[value])))
    }

    /// With the values given.
    pub fn counters_of(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&'static str],
    ) -> Result<Each<&'static str, IntCounter>, prometheus::Error> {
        let counters = self.add(IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        Ok(Each::of(values, |value| {
            counters.with_label_values(&[value])
        }))
    }

    /// The first label has the values given.
    pub fn counters_by<L: Label>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        first: &[&'static str],
    ) -> Result<Each<&'static str, Each<L, IntCounter>>, prometheus::Error> {
        let counters = self.add(IntCounterVec::new(Opts::new(name, help), &labels)?)?;
        Ok(Each::of(first, |first| {
            Each::all(|second| counters.with_label_values(&[first, second]))
        }))
    }

    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    pub fn gauges<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<Each<L, IntGauge>, prometheus::Error> {
        let gauges = self.add(IntGaugeVec::new(Opts::new(name, help), &[label])?)?;
        Ok(Each::all(|value| gauges.with_label_values(&[value])))
    }

    /// By the first label, with the values given of both.
    pub fn gauges_of(
        &self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        values: &[(&'static str, &'static str)],
    ) -> Result<Each<&'static str, IntGauge>, prometheus::Error> {
        let gauges = self.add(IntGaugeVec::new(Opts::new(name, help), &labels)?)?;
        let gauge = |(first, second)| (first, gauges.with_label_values(&[first, second]));
        Ok(Each(values.iter().copied().map(gauge).collect()))
    }

    /// A gauge whose value is computed at each scrape.
    pub fn computed(
        &self,
        name: &str,
        help: &str,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        let gauge = Gauge::new(name, help)?;
        self.0.register(Box::new(Computed { gauge, value }))
    }

    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options)?)
    }

    pub fn histograms<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        buckets: &[f64],
    ) -> Result<Each<L, Histogram>, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = self.add(HistogramVec::new(options, &[label])?)?;
        Ok(Each::all(|value| histograms.with_label_values(&[value])))
    }

    /// The first label has the values given.
    pub fn histograms_by<L: Label>(
        &self,
        (name, help): (&str, &str),
        labels: [&str; 2],
        first: &[&'static str],
        buckets: &[f64],
    ) -> Result<Each<&'static str, Each<L, Histogram>>, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = self.add(HistogramVec::new(options, &labels)?)?;
        Ok(Each::of(first, |first| {
            Each::all(|second| histograms.with_label_values(&[first, second]))
        }))
    }

    /// With the values given.
    pub fn histograms_of(
        &self,
        (name, help): (&str, &str),
        label: &str,
        values: &[&'static str],
        buckets: &[f64],
    ) -> Result<Each<&'static str, Histogram>, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = self.add(HistogramVec::new(options, &[label])?)?;
        Ok(Each::of(values, |value| {
            histograms.with_label_values(&[value])
        }))
    }

    pub fn add<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

struct Computed<F> {
    gauge: Gauge,
    value: F,
}

impl<F: Fn() -> f64 + Send + Sync> Collector for Computed<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set((self.value)());
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
    #[strum(serialize_all = "snake_case")]
    enum Fruit {
        Apple,
        BloodOrange,
    }

    fn text(registry: &Registry) -> String {
        let families = registry.gather();
        prometheus::TextEncoder::new()
            .encode_to_string(&families)
            .expect("text")
    }

    #[test]
    fn counters_are_there_before_they_count() {
        let registry = Registry::new();
        let new = Register(&registry);
        let eaten = new.counters::<Fruit>("eaten_total", "Fruits", "fruit");
        let eaten = eaten.expect("a metric");
        assert!(text(&registry).contains("eaten_total{fruit=\"blood_orange\"} 0\n"));
        eaten.get(Fruit::BloodOrange).inc();
        let text = text(&registry);
        assert!(text.contains("eaten_total{fruit=\"blood_orange\"} 1\n"));
        assert!(text.contains("eaten_total{fruit=\"apple\"} 0\n"));
    }

    #[test]
    fn a_computed_gauge_is_new_at_each_scrape() {
        let registry = Registry::new();
        let age = Arc::new(AtomicU64::new(1));
        let read = Arc::clone(&age);
        Register(&registry)
            .computed("age_seconds", "Age", move || {
                read.load(Ordering::Relaxed) as f64
            })
            .expect("a metric");
        assert!(text(&registry).contains("age_seconds 1\n"));
        age.store(2, Ordering::Relaxed);
        assert!(text(&registry).contains("age_seconds 2\n"));
    }
}
