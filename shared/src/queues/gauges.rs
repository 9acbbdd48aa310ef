//! The gauges of what was read last: ages always, amounts while they are fresh.

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge, IntGaugeVec, Opts};

use super::{Queues, Reading, STALE, STREAMS};
use crate::clock;

/// The gauges of the last reading.
pub(super) struct Gauges {
    queues: Queues,
    /// One scrape at a time.
    scrape: Mutex<()>,
    pending: IntGaugeVec,
    unacked: IntGaugeVec,
    /// Without labels, so that they may have no value.
    waiting: IntGaugeVec,
    dead_letters: IntGaugeVec,
    bytes: IntGaugeVec,
    max_bytes: IntGaugeVec,
    bucket: IntGaugeVec,
    oldest_event: Gauge,
    oldest_due: Gauge,
    read: IntGauge,
}

impl Gauges {
    pub(super) fn new(queues: Queues) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels)
        };
        Ok(Self {
            queues,
            scrape: Mutex::default(),
            pending: gauges(
                "hookline_consumer_pending_messages",
                "Messages that no dispatcher has taken yet; the same from each process",
                &["consumer"],
            )?,
            unacked: gauges(
                "hookline_consumer_unacked_messages",
                "Messages that dispatchers have in hand; the same from each process",
                &["consumer"],
            )?,
            waiting: gauges(
                "hookline_waiting_deliveries",
                "Parked deliveries that are not due yet; the same from each process",
                &[],
            )?,
            dead_letters: gauges(
                "hookline_dead_letters",
                "Dead letters that are kept; the same from each process",
                &[],
            )?,
            bytes: gauges(
                "hookline_stream_bytes",
                "Size of each stream; the same from each process",
                &["stream"],
            )?,
            max_bytes: gauges(
                "hookline_stream_max_bytes",
                "Size that a stream may have, if it has a limit; the same from each process",
                &["stream"],
            )?,
            bucket: gauges(
                "hookline_bucket_last_sequence",
                "Sequence of the newest change in the bucket that this process follows: a gateway all entities, a dispatcher hooks",
                &[],
            )?,
            oldest_event: Gauge::new(
                "hookline_oldest_event_age_seconds",
                "Age of the oldest event that is not settled, or 0; the same from each process",
            )?,
            oldest_due: Gauge::new(
                "hookline_oldest_due_age_seconds",
                "Time since the oldest delivery that is not settled fell due, or 0; the same from each process",
            )?,
            read: IntGauge::new(
                "hookline_queues_read_timestamp_seconds",
                "When this process last read the state of the streams, as Unix time; 0: never",
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 10] {
        [
            &self.pending,
            &self.unacked,
            &self.waiting,
            &self.dead_letters,
            &self.bytes,
            &self.max_bytes,
            &self.bucket,
            &self.oldest_event,
            &self.oldest_due,
            &self.read,
        ]
    }

    fn set(&self, reading: &Reading) {
        let now = clock::unix_millis() as f64 / 1e3;
        let age = |oldest: Option<f64>| oldest.map_or(0.0, |oldest| (now - oldest).max(0.0));
        self.oldest_event.set(age(reading.oldest_event()));
        self.oldest_due.set(age(reading.oldest_due()));
        let ago = reading.at.elapsed();
        self.read.set((now - ago.as_secs_f64()) as i64);
        let amounts = [
            &self.pending,
            &self.unacked,
            &self.waiting,
            &self.dead_letters,
            &self.bytes,
            &self.max_bytes,
            &self.bucket,
        ];
        amounts.into_iter().for_each(IntGaugeVec::reset);
        if ago >= STALE {
            return;
        }
        let set = |gauges: &IntGaugeVec, labels: &[&str], value: u64| {
            gauges.with_label_values(labels).set(value as i64);
        };
        for (name, pending) in reading.pending() {
            set(&self.pending, &[name], pending);
        }
        for (name, unacked) in reading.unacked() {
            set(&self.unacked, &[name], unacked);
        }
        for (gauges, value) in [
            (&self.waiting, reading.waiting()),
            (&self.dead_letters, reading.dead_letters()),
            (&self.bucket, reading.bucket),
        ] {
            if let Some(value) = value {
                set(gauges, &[], value);
            }
        }
        for name in STREAMS {
            let Some(stream) = reading.stream(name) else {
                continue;
            };
            set(&self.bytes, &[name], stream.bytes);
            if let Some(max_bytes) = stream.max_bytes {
                set(&self.max_bytes, &[name], max_bytes);
            }
        }
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one = self.scrape.lock();
        let last = self.queues.last.lock().clone();
        if let Some(reading) = last {
            self.set(&reading);
        }
        let families = self.all().into_iter().flat_map(Collector::collect);
        families
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use prometheus::Registry;

    use super::super::{Consumer, Stream};
    use super::*;

    fn text(registry: &Registry) -> String {
        let encoder = prometheus::TextEncoder::new();
        encoder.encode_to_string(&registry.gather()).expect("text")
    }

    fn reading(ago: Duration) -> Reading {
        let oldest = clock::unix_millis() as f64 / 1e3 - 100.0;
        let consumer = |pending, unacked, oldest| Consumer {
            pending,
            unacked,
            floor: 0,
            oldest,
        };
        let stream = |messages| {
            Some(Stream {
                messages,
                bytes: messages * 10,
                max_bytes: None,
            })
        };
        Reading {
            at: Instant::now().checked_sub(ago).expect("a time"),
            consumers: [
                consumer(7, 2, Some(oldest)),
                consumer(3, 1, None),
                consumer(0, 1, Some(oldest + 50.0)),
            ],
            streams: [
                stream(1),
                stream(10),
                stream(100),
                stream(4),
                stream(5),
                stream(6),
            ],
            bucket: Some(77),
        }
    }

    #[test]
    fn amounts_are_shown_while_they_are_fresh_and_ages_always() {
        let registry = Registry::new();
        let queues = Queues::register(&registry).expect("metrics");
        let value = |name: &str| {
            let text = text(&registry);
            let line = text.lines().find(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            });
            line.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
        };
        assert_eq!(value("hookline_waiting_deliveries"), None, "not known yet");
        assert_eq!(
            value("hookline_oldest_event_age_seconds").as_deref(),
            Some("0")
        );

        *queues.last.lock() = Some(reading(Duration::ZERO));
        assert_eq!(value("hookline_waiting_deliveries").as_deref(), Some("95"));
        assert_eq!(value("hookline_dead_letters").as_deref(), Some("4"));
        assert_eq!(
            value("hookline_bucket_last_sequence").as_deref(),
            Some("77")
        );
        let age = |name: &str| value(name).and_then(|age| age.parse::<f64>().ok());
        let due = age("hookline_oldest_due_age_seconds").expect("an age");
        assert!((50.0..60.0).contains(&due), "{due}");

        let mut partial = reading(Duration::ZERO);
        partial.streams[2] = None;
        *queues.last.lock() = Some(partial);
        assert_eq!(value("hookline_waiting_deliveries"), None, "no answer");
        assert_eq!(value("hookline_dead_letters").as_deref(), Some("4"));

        *queues.last.lock() = Some(reading(STALE));
        assert_eq!(value("hookline_waiting_deliveries"), None, "too old");
        assert!(queues.recent().is_none());
        let event = age("hookline_oldest_event_age_seconds").expect("an age");
        assert!((100.0..110.0).contains(&event), "{event}");
    }
}
