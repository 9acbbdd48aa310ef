//! Creates or checks the streams and consumers.
//!
//! Every service does this at its start, so there is no set-up step and no first service. Streams and consumers that
//! exist are never changed, since an operator may have tuned them. Settings that differ are reported, and `migrate` changes
//! them when it is asked to.

pub mod migrate;

use std::fmt;
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::consumer::{FromConsumer as _, IntoConsumerConfig as _};
use async_nats::jetstream::stream::{
    Config, ConsumerCreateStrictErrorKind, DiscardPolicy, PersistenceMode, Republish,
    RetentionPolicy, Source, StorageType, SubjectTransform,
};
use async_nats::jetstream::{self, ErrorCode, consumer};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::connection::{self, RETRY, permitted};
use crate::event::MAX_EVENT_BYTES;
use crate::stream_api::raw;
use crate::subject;

/// The part of the server's `max_payload` that is left for the headers of a parked delivery.
const HEADER_ROOM: usize = 64 << 10;
/// Window in which JetStream drops a repeated `Nats-Msg-Id`.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// JetStream knows no workspaces: in its window a publisher could silence another's event. This is the shortest that it
/// allows; Redis drops repeats within a workspace.
const EVENTS_DUPLICATE_WINDOW: Duration = Duration::from_millis(100);
/// Messages of a consumer in flight, over all dispatchers.
const MAX_ACK_PENDING: i64 = 100_000;
/// How long the servers of a cluster may take to form it.
const GATHERING: Duration = Duration::from_secs(30);
/// Between looks for missing streams.
const KEEP_INTERVAL: Duration = Duration::from_secs(5);
const DEAD_AGE: Duration = Duration::from_secs(30 * 86_400);
const ATTEMPTS_AGE: Duration = Duration::from_secs(7 * 86_400);
const AUDIT_AGE: Duration = Duration::from_secs(90 * 86_400);

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Streams")]
#[group(skip)]
pub struct Options {
    /// Copies of every stream, when it is created; 3 or 5 in a NATS cluster.
    #[arg(
        long,
        env = "HOOKLINE_REPLICAS",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=5)
    )]
    pub replicas: u64,

    /// Size in bytes at which the event stream refuses publishers, when it is created. Dead letters
    /// and the delivery log may each take a quarter of it, audit records an eighth.
    #[arg(
        long,
        env = "HOOKLINE_EVENTS_MAX_BYTES",
        value_name = "BYTES",
        default_value_t = 4 << 30,
        value_parser = clap::value_parser!(i64).range(4 << 20..)
    )]
    pub events_max_bytes: i64,

    /// Largest event in bytes, when the event stream is created. NATS' max_payload bounds it as well.
    #[arg(
        long,
        env = "HOOKLINE_MAX_EVENT",
        value_name = "BYTES",
        default_value_t = MAX_EVENT_BYTES as u64,
        value_parser = clap::value_parser!(u64).range(16 << 10..=MAX_EVENT_BYTES as u64)
    )]
    pub max_event: u64,

    /// Let publishers send many events as one atomic batch, when the event stream is created. NATS allows 50 open
    /// batches: a publisher who leaves them open keeps out the others', and slows events over HTTP down.
    #[arg(
        long,
        env = "HOOKLINE_EVENT_BATCHES",
        value_name = "true|false",
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub event_batches: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Connection(#[from] connection::Error),
    #[error("cannot create {name}: {reason}")]
    Create {
        name: &'static str,
        /// In the server's words.
        reason: String,
    },
    #[error("cannot change {name}: {reason}")]
    Change {
        name: &'static str,
        /// In the server's words.
        reason: String,
    },
    /// The server or the account has less storage than the stream may take.
    #[error(
        "cannot create {name}: NATS has too little storage for it; lower HOOKLINE_EVENTS_MAX_BYTES, or give JetStream more (max_file_store)"
    )]
    Storage { name: &'static str },
    #[error(
        "the bucket {name} is of an earlier version, whose keys have a % in them: remove it with `nats stream rm {name}`, and make the entities again",
        name = subject::BUCKET_STREAM
    )]
    OldKeys,
}

impl Options {
    /// The largest event in bytes. It fits the server when it is parked with its headers.
    #[must_use]
    pub fn max_event_bytes(&self, client: &Client) -> usize {
        let max_payload = client.server_info().max_payload;
        (self.max_event as usize).min(max_payload.saturating_sub(HEADER_ROOM))
    }
}

/// Creates the streams that do not exist, and reports how existing ones differ. Waits while JetStream has no leader.
pub async fn ensure(
    context: &jetstream::Context,
    options: &Options,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let max_event = options.max_event_bytes(&context.client());
    for (name, config) in configs(options, max_event) {
        ensure_stream(context, name, config, shutdown).await?;
    }
    // Without an answer it is taken for one of now.
    let old = json!({ "last_by_subj": subject::OLD_ENTITY_SUBJECTS });
    match raw(&context.client(), subject::BUCKET_STREAM, old).await {
        Ok(Some(_)) => Err(Error::OldKeys),
        _ => Ok(()),
    }
}

/// Creates streams that somebody removes while this process runs, but not the bucket, which may be about to be restored.
pub async fn keep(context: jetstream::Context, options: Options) {
    let never = CancellationToken::new();
    let max_event = options.max_event_bytes(&context.client());
    loop {
        tokio::time::sleep(KEEP_INTERVAL).await;
        for (name, config) in configs(&options, max_event) {
            if name == subject::BUCKET_STREAM || !is_missing(&context, name).await {
                continue;
            }
            tracing::error!(
                stream = name,
                "a stream is missing in NATS, with what it held: creating it"
            );
            if let Err(error) = ensure_stream(&context, name, config, &never).await {
                tracing::error!(stream = name, %error, "cannot create it");
            }
        }
    }
}

/// Not if NATS does not answer.
pub(crate) async fn is_missing(context: &jetstream::Context, name: &str) -> bool {
    use jetstream::context::GetStreamErrorKind as Kind;
    let found = context.get_stream(name).await;
    found.is_err_and(|error| match error.kind() {
        Kind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        _ => false,
    })
}

fn configs(options: &Options, max_event: usize) -> [(&'static str, Config); 6] {
    let base = |name: &str, subjects: &str| Config {
        name: name.to_owned(),
        description: Some(format!("Hookline: {}", about(name))),
        subjects: vec![subjects.to_owned()],
        storage: StorageType::File,
        num_replicas: options.replicas as usize,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Default::default()
    };
    let bucket = Config {
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_atomic_publish: true,
        ..base(subject::BUCKET_STREAM, subject::BUCKET_SUBJECTS)
    };
    // Not a work queue: see the dispatcher's event purge.
    let events = Config {
        discard: DiscardPolicy::New,
        max_bytes: options.events_max_bytes,
        max_message_size: max_event as i32,
        allow_atomic_publish: options.event_batches,
        duplicate_window: EVENTS_DUPLICATE_WINDOW,
        sources: Some(vec![copied(
            subject::OUTBOX_SUBJECTS,
            subject::EVENT_SUBJECTS,
        )]),
        republish: Some(Republish {
            source: subject::EVENT_SUBJECTS.to_owned(),
            destination: subject::WATCH_SUBJECTS.to_owned(),
            headers_only: false,
        }),
        ..base(subject::EVENTS_STREAM, subject::EVENT_SUBJECTS)
    };
    let deliveries = Config {
        retention: RetentionPolicy::WorkQueue,
        allow_message_schedules: true,
        allow_rollup: true,
        allow_atomic_publish: true,
        ..base(subject::DELIVERIES_STREAM, subject::DELIVERY_SUBJECTS)
    };
    let dead = Config {
        discard: DiscardPolicy::New,
        max_bytes: options.events_max_bytes / 4,
        max_age: DEAD_AGE,
        max_messages_per_subject: 1,
        allow_atomic_publish: true,
        ..base(subject::DEAD_STREAM, subject::DEAD_SUBJECTS)
    };
    // The one stream that may lag behind the disk; copies on other servers do as well.
    let persist_mode = (options.replicas == 1).then_some(PersistenceMode::Async);
    let attempts = Config {
        max_age: ATTEMPTS_AGE,
        max_bytes: options.events_max_bytes / 4,
        persist_mode,
        ..base(subject::ATTEMPTS_STREAM, subject::ATTEMPT_SUBJECTS)
    };
    let audit = Config {
        max_age: AUDIT_AGE,
        max_bytes: options.events_max_bytes / 8,
        sources: Some(vec![copied(subject::AUDIT_KEYS, subject::AUDIT_SUBJECTS)]),
        ..base(subject::AUDIT_STREAM, subject::AUDIT_SUBJECTS)
    };
    [
        (subject::BUCKET_STREAM, bucket),
        (subject::EVENTS_STREAM, events),
        (subject::DELIVERIES_STREAM, deliveries),
        (subject::DEAD_STREAM, dead),
        (subject::ATTEMPTS_STREAM, attempts),
        (subject::AUDIT_STREAM, audit),
    ]
}

/// Messages of the bucket that are copied to a stream.
fn copied(keys: &str, subjects: &str) -> Source {
    Source {
        name: subject::BUCKET_STREAM.to_owned(),
        // Without this, a server that sets up the source while the stream is empty skips entries older than the
        // stream's last message. With it, remaining entries may be copied again, under the same ids.
        start_sequence: Some(1),
        subject_transforms: vec![SubjectTransform {
            source: keys.to_owned(),
            destination: subjects.to_owned(),
        }],
        ..Default::default()
    }
}

/// What a stream or consumer is for, for those who look at it.
fn about(name: &str) -> &'static str {
    match name {
        subject::BUCKET_STREAM => {
            "entities, their unique values, and events about to be copied to HOOKLINE_EVENTS"
        }
        subject::EVENTS_STREAM => {
            "events until their deliveries are made, parked or dead; full, it refuses publishers"
        }
        subject::DELIVERIES_STREAM => {
            "deliveries that wait for their time (wait), are due (due), or are for any dispatcher (now)"
        }
        subject::DEAD_STREAM => "dead letters, by hook; messages that are no events, under event",
        subject::ATTEMPTS_STREAM => "the delivery log, by hook and hour, one attempt a line",
        subject::AUDIT_STREAM => {
            "who changed what through the Admin API, and who was refused, by workspace"
        }
        subject::DISPATCHERS_CONSUMER => "all dispatchers share events",
        subject::RETRIES_CONSUMER => "all dispatchers share deliveries that fell due",
        subject::FANOUT_CONSUMER => {
            "all dispatchers share deliveries of events that many hooks hear"
        }
        _ => "",
    }
}

async fn ensure_stream(
    context: &jetstream::Context,
    name: &'static str,
    config: Config,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let (mut warned, started) = (false, Instant::now());
    loop {
        let error = match permitted(name, context.get_or_create_stream(config.clone())).await? {
            Ok(stream) => {
                for difference in stream_differences(&config, &stream.cached_info().config) {
                    tracing::warn!(
                        stream = name,
                        %difference,
                        "a stream setting differs from what Hookline would create; it is left as it is, `hookline-gateway migrate` changes it"
                    );
                }
                return Ok(());
            }
            Err(error) => error,
        };
        use jetstream::context::CreateStreamErrorKind as Kind;
        let refused = match error.kind() {
            Kind::JetStreamUnavailable | Kind::TimedOut => false,
            // Waiting does not free storage.
            Kind::JetStream(error)
                if error.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED =>
            {
                return Err(Error::Storage { name });
            }
            // Another service has just created it with other settings: read those.
            Kind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => false,
            // A single server never has copies.
            Kind::JetStream(error)
                if error.code() == 500
                    && config.num_replicas > 1
                    && context.client().server_info().cluster.is_none() =>
            {
                true
            }
            // The cluster is still forming.
            Kind::JetStream(error) if error.error_code() == ErrorCode::CLUSTER_NO_PEERS => {
                started.elapsed() > GATHERING
            }
            Kind::JetStream(error) => !matches!(error.code(), 500..),
            _ => false,
        };
        if refused {
            let copies = config.num_replicas;
            let reason = if copies > 1 {
                format!("{error}; HOOKLINE_REPLICAS asks for {copies} copies")
            } else {
                error.to_string()
            };
            return Err(Error::Create { name, reason });
        }
        if !warned {
            warned = true;
            tracing::warn!(stream = name, %error, "JetStream is not ready, retrying every second; is it enabled on the server?");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return Err(connection::Error::Stopped.into()),
        }
    }
}

/// The settings of a stream that Hookline cares about.
const CHECKED: [&str; 18] = [
    "subjects",
    "retention",
    "discard",
    "storage",
    "num_replicas",
    "max_bytes",
    "max_age",
    "max_msg_size",
    "max_msgs",
    "max_msgs_per_subject",
    "duplicate_window",
    "sources",
    "republish",
    "allow_atomic",
    "allow_msg_schedules",
    "allow_direct",
    "deny_delete",
    "subject_delete_marker_ttl",
];

/// A setting that is not as it should be, in JSON.
#[derive(Debug)]
pub struct Difference {
    pub name: &'static str,
    pub have: String,
    pub want: String,
}

impl Difference {
    /// A value as people read it: JSON has times in nanoseconds.
    fn shown(&self, value: &str) -> String {
        let times = ["max_age", "duplicate_window", "subject_delete_marker_ttl"];
        let nanoseconds = value.parse().ok().filter(|_| times.contains(&self.name));
        nanoseconds.map_or_else(
            || value.to_owned(),
            |nanoseconds| format!("{:?}", Duration::from_nanos(nanoseconds)),
        )
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected {}", self.name, self.have, self.want)
    }
}

fn stream_differences(want: &Config, have: &Config) -> Vec<Difference> {
    differences(want, have, &CHECKED)
}

fn differences<T: Serialize>(want: &T, have: &T, checked: &[&'static str]) -> Vec<Difference> {
    let json = |config| serde_json::to_value(config).unwrap_or_default();
    let (want, have) = (json(want), json(have));
    let show = |config: &serde_json::Value, name| {
        config
            .get(name)
            .map_or("unset".to_owned(), ToString::to_string)
    };
    checked
        .iter()
        .filter(|name| want.get(name) != have.get(name))
        .map(|name| Difference {
            name,
            have: show(&have, name),
            want: show(&want, name),
        })
        .collect()
}

/// Creates a durable pull consumer that all dispatchers share. An existing one is used as it is, and settings that
/// differ are reported. Its `ack_wait` is in `cached_info`.
pub async fn ensure_consumer(
    context: &jetstream::Context,
    stream: &'static str,
    name: &'static str,
    filter: &str,
    ack_wait: Duration,
) -> Result<consumer::PullConsumer, Error> {
    let config = consumer::pull::Config {
        durable_name: Some(name.to_owned()),
        description: Some(format!("Hookline: {}", about(name))),
        filter_subject: filter.to_owned(),
        ack_policy: consumer::AckPolicy::Explicit,
        ack_wait,
        max_ack_pending: MAX_ACK_PENDING,
        max_deliver: -1,
        ..Default::default()
    };
    let refused = |error: &dyn std::fmt::Display| Error::Create {
        name,
        reason: error.to_string(),
    };
    let created = context.create_consumer_strict_on_stream(config.clone(), stream);
    let about = format!("{stream}.{name}");
    match permitted(&about, created).await? {
        Err(error) if error.kind() == ConsumerCreateStrictErrorKind::AlreadyExists => {}
        created => return created.map_err(|error| refused(&error)),
    }
    let existing: consumer::PullConsumer =
        permitted(&about, context.get_consumer_from_stream(name, stream))
            .await?
            .map_err(|error| refused(&error))?;
    let have = &existing.cached_info().config;
    for difference in consumer_differences(&config.into_consumer_config(), have) {
        tracing::warn!(
            stream,
            consumer = name,
            %difference,
            "a consumer setting differs from this dispatcher's; it is left as it is"
        );
    }
    Ok(existing)
}

/// Changes the ack wait of a consumer, if there is one.
pub async fn set_ack_wait(
    context: &jetstream::Context,
    stream: &'static str,
    name: &'static str,
    ack_wait: Duration,
) -> Result<(), Error> {
    let about = format!("{stream}.{name}");
    let refused = |reason: String| Error::Create { name, reason };
    let found: Result<consumer::PullConsumer, _> =
        permitted(&about, context.get_consumer_from_stream(name, stream)).await?;
    let Ok(found) = found else { return Ok(()) };
    let mut config =
        consumer::pull::Config::try_from_consumer_config(found.cached_info().config.clone())
            .map_err(|error| refused(error.to_string()))?;
    config.ack_wait = ack_wait;
    let updated = permitted(&about, context.update_consumer_on_stream(config, stream)).await?;
    updated
        .map(drop)
        .map_err(|error| refused(error.to_string()))
}

fn consumer_differences(want: &consumer::Config, have: &consumer::Config) -> Vec<Difference> {
    let checked = [
        "ack_policy",
        "ack_wait",
        "deliver_policy",
        "filter_subject",
        "filter_subjects",
        "max_ack_pending",
        "max_deliver",
        "backoff",
    ];
    differences(want, have, &checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        let arguments = std::iter::once(&"x").chain(arguments);
        Arguments::try_parse_from(arguments)
            .expect("valid arguments")
            .options
    }

    #[test]
    fn a_streams_differences_are_named() {
        let [_, (_, want), ..] = configs(&options(&[]), MAX_EVENT_BYTES);
        let have = Config {
            max_bytes: 7,
            discard: DiscardPolicy::Old,
            ..want.clone()
        };
        let found = stream_differences(&want, &have);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        let found = found.join("; ");
        assert!(
            found.contains("max_bytes is 7") && found.contains("discard is \"old\""),
            "{found}"
        );
        assert!(stream_differences(&want, &want).is_empty());
    }
}
