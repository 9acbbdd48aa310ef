//! How much waits in NATS, and for how long. Both services ask every few seconds: gateways live when no dispatcher does.
//!
//! Ages are computed at each scrape, so that they grow while NATS is away. Amounts are left out once they are too old to
//! be true.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, IntGauge, IntGaugeVec, Opts, Registry};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock;
use crate::metrics::{Each, Register, SHORT};
use crate::stream_api::{self, Error, api, raw};
use crate::subject::{
    ALL_SUBJECTS, ATTEMPTS_STREAM, BUCKET_STREAM, DEAD_STREAM, DELIVERIES_STREAM,
    DISPATCHERS_CONSUMER, DUE_SUBJECTS, EVENTS_STREAM, FANOUT_CONSUMER, NOW_SUBJECTS,
    RETRIES_CONSUMER,
};

/// Between looks.
const PERIOD: Duration = Duration::from_secs(5);
/// Amounts that were read longer ago are not shown.
const STALE: Duration = Duration::from_secs(30);

const STREAMS: [&str; 5] = [
    BUCKET_STREAM,
    EVENTS_STREAM,
    DELIVERIES_STREAM,
    DEAD_STREAM,
    ATTEMPTS_STREAM,
];

/// Calls to JetStream whose duration is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Call {
    StreamInfo,
    ConsumerInfo,
    MessageGet,
}

/// The consumers that dispatchers share: stream, name, subjects.
const CONSUMERS: [(&str, &str, &str); 3] = [
    (EVENTS_STREAM, DISPATCHERS_CONSUMER, ALL_SUBJECTS),
    (DELIVERIES_STREAM, RETRIES_CONSUMER, DUE_SUBJECTS),
    (DELIVERIES_STREAM, FANOUT_CONSUMER, NOW_SUBJECTS),
];

/// Clones share what was read last.
#[derive(Debug, Clone)]
pub struct Queues {
    last: Arc<Mutex<Option<Reading>>>,
    calls: Each<Call, Histogram>,
}

/// What the streams and consumers said at one time.
#[derive(Debug, Clone)]
pub struct Reading {
    at: Instant,
    /// In the order of [`CONSUMERS`].
    consumers: [Consumer; 3],
    /// In the order of [`STREAMS`]. None: it did not answer.
    streams: [Option<Stream>; 5],
    /// The last sequence of what this process follows in the bucket, if it answered.
    bucket: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Consumer {
    /// Messages not delivered yet.
    pending: u64,
    /// Delivered, and not acked.
    unacked: u64,
    /// All up to this sequence are acked.
    floor: u64,
    /// When the first of all these was stored, in Unix seconds.
    oldest: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    messages: u64,
    bytes: u64,
    /// None: no limit.
    max_bytes: Option<u64>,
}

impl Queues {
    /// Registers the gauges. Until NATS has answered, there are no values.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let queues = Self {
            last: Arc::default(),
            calls: Register(registry).histograms(
                "hookline_jetstream_request_duration_seconds",
                "Duration of requests that look at streams, by kind of request",
                "call",
                SHORT,
            )?,
        };
        registry.register(Box::new(Gauges::new(queues.clone())?))?;
        Ok(queues)
    }

    /// Reads from time to time. `followed`: the subjects in the bucket that this process follows.
    pub async fn follow(self, client: Client, followed: &'static str) {
        loop {
            let last = self.last.lock().clone();
            match self.read(&client, followed, last).await {
                Ok(reading) => *self.last.lock() = Some(reading),
                Err(error) => tracing::debug!(%error, "cannot read how much waits in NATS"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// What was read last, unless that is long ago.
    #[must_use]
    pub fn recent(&self) -> Option<Reading> {
        let last = self.last.lock().clone();
        last.filter(|reading| reading.at.elapsed() < STALE)
    }

    /// Fails if a consumer does not answer. What else does not is left out.
    async fn read(
        &self,
        client: &Client,
        followed: &str,
        last: Option<Reading>,
    ) -> Result<Reading, Error> {
        let at = Instant::now();
        let before = last.map_or_else(Default::default, |last| last.consumers);
        let mut consumers = [Consumer::default(); 3];
        for (index, consumer) in consumers.iter_mut().enumerate() {
            *consumer = self
                .consumer(client, CONSUMERS[index], before[index])
                .await?;
        }
        let mut streams = [None; 5];
        for (stream, name) in streams.iter_mut().zip(STREAMS) {
            *stream = self.stream(client, name).await.ok();
        }
        let newest = json!({ "last_by_subj": followed });
        let newest = raw(client, BUCKET_STREAM, newest);
        let newest = self.timed(Call::MessageGet, newest).await.ok();
        Ok(Reading {
            at,
            consumers,
            streams,
            bucket: newest.map(|newest| newest.map_or(0, |message| message.seq)),
        })
    }

    async fn stream(&self, client: &Client, name: &str) -> Result<Stream, Error> {
        let (subject, all) = (format!("STREAM.INFO.{name}"), json!({}));
        let info = self
            .timed(Call::StreamInfo, api(client, &subject, &all))
            .await?;
        let state = |field: &str| info["state"][field].as_u64().unwrap_or_default();
        // Zero or less: no limit.
        let max_bytes = info["config"]["max_bytes"].as_u64();
        Ok(Stream {
            messages: state("messages"),
            bytes: state("bytes"),
            max_bytes: max_bytes.filter(|max| *max > 0),
        })
    }

    async fn consumer(
        &self,
        client: &Client,
        (stream, name, subjects): (&str, &str, &str),
        before: Consumer,
    ) -> Result<Consumer, Error> {
        let (subject, all) = (format!("CONSUMER.INFO.{stream}.{name}"), json!({}));
        let info = self.timed(Call::ConsumerInfo, api(client, &subject, &all));
        let info = match info.await {
            // No dispatcher has made it yet. Nothing else is in the stream then.
            Err(Error::Refused(error)) if error["err_code"] == stream_api::NO_CONSUMER => {
                let pending = match name {
                    DISPATCHERS_CONSUMER => self.stream(client, stream).await?.messages,
                    _ => 0,
                };
                json!({ "num_pending": pending })
            }
            info => info?,
        };
        let (pending, unacked) = (
            number(&info["num_pending"]),
            number(&info["num_ack_pending"]),
        );
        let floor = number(&info["ack_floor"]["stream_seq"]);
        let mut oldest = before.oldest.filter(|_| floor == before.floor);
        if pending + unacked == 0 {
            oldest = None;
        } else if oldest.is_none() {
            // Its whole body comes along.
            let first = json!({ "seq": floor + 1, "next_by_subj": subjects });
            let first = raw(client, stream, first);
            let first = self.timed(Call::MessageGet, first).await?;
            oldest = first.and_then(|message| unix_seconds(&message.time));
        }
        Ok(Consumer {
            pending,
            unacked,
            floor,
            oldest,
        })
    }

    async fn timed<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let asked = Instant::now();
        let answer = answer.await;
        if !matches!(answer, Err(Error::Request(_))) {
            let took = asked.elapsed().as_secs_f64();
            self.calls.get(call).observe(took);
        }
        answer
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn unix_seconds(text: &str) -> Option<f64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(time.unix_timestamp_nanos() as f64 / 1e9)
}

impl Reading {
    /// Messages that no dispatcher has taken, by consumer.
    pub fn pending(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names = CONSUMERS.iter().map(|(_, name, _)| *name);
        names.zip(self.consumers.iter().map(|consumer| consumer.pending))
    }

    /// Messages that dispatchers have in hand, by consumer.
    pub fn unacked(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names = CONSUMERS.iter().map(|(_, name, _)| *name);
        names.zip(self.consumers.iter().map(|consumer| consumer.unacked))
    }

    /// Parked deliveries that are not due.
    fn waiting(&self) -> Option<u64> {
        let [_, retries, fanout] = self.consumers;
        let ready = retries.pending + retries.unacked + fanout.pending + fanout.unacked;
        let stored = self.stream(DELIVERIES_STREAM)?.messages;
        Some(stored.saturating_sub(ready))
    }

    fn dead_letters(&self) -> Option<u64> {
        Some(self.stream(DEAD_STREAM)?.messages)
    }

    fn stream(&self, name: &str) -> Option<Stream> {
        let index = STREAMS.iter().position(|known| *known == name)?;
        self.streams[index]
    }

    fn oldest_event(&self) -> Option<f64> {
        self.consumers[0].oldest
    }

    /// Of the deliveries that are due, or that any worker may make.
    fn oldest_due(&self) -> Option<f64> {
        let [_, retries, fanout] = self.consumers;
        let both = retries.oldest.into_iter().chain(fanout.oldest);
        both.reduce(f64::min)
    }
}

/// The gauges of the last reading.
struct Gauges {
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
    fn new(queues: Queues) -> Result<Self, prometheus::Error> {
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
            streams: [stream(1), stream(10), stream(100), stream(4), stream(5)],
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
