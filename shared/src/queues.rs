//! How much waits in NATS, and for how long. Both services ask every few seconds: gateways live when no dispatcher does.
//!
//! Ages are computed at each scrape, so that they grow while NATS is away. Amounts are left out once they are too old to
//! be true.

mod gauges;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use parking_lot::Mutex;
use prometheus::{Histogram, Registry};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::metrics::{Each, Register, SHORT};
use crate::stream_api::{self, Error, api, raw};
use crate::subject::{
    ALL_SUBJECTS, ATTEMPTS_STREAM, AUDIT_STREAM, BUCKET_STREAM, DEAD_STREAM, DELIVERIES_STREAM,
    DISPATCHERS_CONSUMER, DUE_SUBJECTS, EVENTS_STREAM, FANOUT_CONSUMER, NOW_SUBJECTS,
    RETRIES_CONSUMER,
};
use gauges::Gauges;

/// Between looks.
const PERIOD: Duration = Duration::from_secs(5);
/// Amounts that were read longer ago are not shown.
const STALE: Duration = Duration::from_secs(30);

const STREAMS: [&str; 6] = [
    BUCKET_STREAM,
    EVENTS_STREAM,
    DELIVERIES_STREAM,
    DEAD_STREAM,
    ATTEMPTS_STREAM,
    AUDIT_STREAM,
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
    consumers: [Consumer; CONSUMERS.len()],
    /// In the order of [`STREAMS`]. None: it did not answer.
    streams: [Option<Stream>; STREAMS.len()],
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
        let mut consumers = [Consumer::default(); CONSUMERS.len()];
        for (index, consumer) in consumers.iter_mut().enumerate() {
            *consumer = self
                .consumer(client, CONSUMERS[index], before[index])
                .await?;
        }
        let mut streams = [None; STREAMS.len()];
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
            // No dispatcher has made it yet, so all events wait and nothing is parked.
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
