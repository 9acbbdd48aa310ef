//! What must be equal on all dispatchers of a cluster, since deliveries would die or repeat otherwise: some settings,
//! and the Redis. The bucket keeps what the first dispatcher runs by. One that differs does not start.

mod redis_check;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{self, message::StreamMessage};
use hookline_shared::connection::{self, permitted};
use hookline_shared::subject::{BUCKET_STREAM, CLUSTER_KEY, header};
use hookline_shared::{clock, event};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::redis::client::RedisClient;
use redis_check::RedisCheck;
use settings::{Difference, Settings, list};

/// Between tries to read or write the bucket at startup.
const RETRY: Duration = Duration::from_secs(1);
/// Between looks at what the cluster runs by.
const LOOK: Duration = Duration::from_secs(30);
/// Dispatchers that start at the same time write once each.
const MAX_TRIES: usize = 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{}; give this dispatcher the cluster's settings, or make its settings the cluster's: run `hookline-dispatcher replace-settings` with them, then restart the other dispatchers",
        list(.0)
    )]
    Differ(Vec<Difference>),
    #[error(
        "the cluster's settings in the bucket cannot be read; `hookline-dispatcher replace-settings` replaces them"
    )]
    Unreadable,
    #[error(
        "HOOKLINE_REDIS_URL: the Redis at {address} belongs to another cluster ({other}, this is {own}); use another Redis, or take this one over with `hookline-dispatcher replace-settings`"
    )]
    Foreign {
        address: String,
        other: String,
        own: String,
    },
    #[error(
        "HOOKLINE_REDIS_URL: the Redis at {0} is not the one that the other dispatchers use; deliveries would be repeated"
    )]
    AnotherRedis(String),
    #[error(transparent)]
    Connection(#[from] connection::Error),
    #[error("cannot read or write the cluster's settings: {0}")]
    Nats(#[source] BoxError),
}

/// The cluster that this dispatcher belongs to. Clones share it.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    bucket: Bucket,
    own: Settings,
    redis: RedisCheck,
}

impl Cluster {
    /// Compares this dispatcher's settings with those in the bucket, or stores them if there are none. Waits for NATS
    /// until `shutdown`.
    pub(crate) async fn join(
        config: &Config,
        context: &jetstream::Context,
        redis: RedisClient,
        shutdown: &CancellationToken,
    ) -> Result<Self, Error> {
        let bucket = Bucket(context.clone());
        let mut own = Settings::of(config);
        let agreed = patiently(shutdown, async || bucket.agree(&own).await).await?;
        // For another bucket that takes this one's place.
        own.cluster = agreed.cluster;
        let redis = RedisCheck::new(context.client(), redis);
        Ok(Self(Arc::new(Inner { bucket, own, redis })))
    }

    /// Makes this dispatcher's settings and its Redis the cluster's.
    pub(crate) async fn replace(
        config: &Config,
        context: &jetstream::Context,
        redis: RedisClient,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let bucket = Bucket(context.clone());
        let own = Settings::of(config);
        let replaced = patiently(shutdown, async || bucket.replace(&own).await).await?;
        for (name, value) in &replaced.values {
            tracing::info!(name, value, "this is the cluster's from now on");
        }
        let check = RedisCheck::new(context.client(), redis);
        if !check.take(replaced.cluster).await {
            tracing::warn!("Redis does not answer: it was not taken over");
        }
        Ok(())
    }

    /// Fails if Redis answers and is not the cluster's.
    pub(crate) async fn check_redis(&self) -> Result<(), Error> {
        self.0.redis.check(self.0.own.cluster, true).await
    }

    /// Answers another dispatcher whether this one's Redis has its sign. None: Redis does not answer.
    pub(crate) async fn sees(&self, sign: Uuid) -> Option<bool> {
        self.0.redis.sees(sign).await
    }

    /// Reports differences that come up while this dispatcher runs. Ends only if it started without Redis, and Redis
    /// then belongs to another cluster.
    pub(crate) async fn watch(self) {
        let (mut reported, mut checked) = (None, self.0.redis.is_checked());
        let (mut is_wrong, mut cluster) = (false, self.0.own.cluster);
        loop {
            if let Some(ahead) = self.0.redis.ahead().await
                && is_wrong != (ahead.abs() > clock::TOLERATED.as_secs_f64())
            {
                is_wrong = !is_wrong;
                let ahead_s = ahead.round();
                if is_wrong {
                    tracing::warn!(
                        ahead_s,
                        "the clocks of Redis and NATS differ: keep both set with NTP"
                    );
                } else {
                    tracing::info!("the clocks of Redis and NATS agree again");
                }
            }
            tokio::time::sleep(if checked { LOOK } else { RETRY }).await;
            match self.0.bucket.agree(&self.0.own).await {
                Err(Error::Differ(differences)) if reported.as_ref() != Some(&differences) => {
                    tracing::warn!(
                        differences = list(&differences),
                        "the cluster's settings were replaced: this dispatcher goes on with its own until it is restarted"
                    );
                    reported = Some(differences);
                }
                Err(Error::Unreadable) => tracing::warn!("{}", Error::Unreadable),
                Ok(agreed) => (reported, cluster) = (None, agreed.cluster),
                Err(_) => {}
            }
            match self.0.redis.check(cluster, false).await {
                Err(error) => {
                    tracing::error!("{error}");
                    if !checked {
                        return;
                    }
                }
                Ok(()) => checked = self.0.redis.is_checked(),
            }
        }
    }
}

/// Retries while NATS cannot answer.
async fn patiently<T>(
    shutdown: &CancellationToken,
    call: impl AsyncFn() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut warned = false;
    loop {
        match call().await {
            Err(Error::Nats(error)) => {
                if !warned {
                    warned = true;
                    tracing::warn!(%error, "cannot read the cluster's settings yet, retrying every second");
                }
            }
            result => return result,
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return Err(connection::Error::Stopped.into()),
        }
    }
}

/// The cluster's settings in the bucket.
struct Bucket(jetstream::Context);

impl Bucket {
    /// Returns what the cluster runs by, which does not differ from `own`.
    async fn agree(&self, own: &Settings) -> Result<Settings, Error> {
        for _ in 0..MAX_TRIES {
            let (sequence, wanted) = match self.read().await? {
                None => (0, own.clone()),
                Some(message) if is_deleted(&message) => (message.sequence, own.clone()),
                Some(message) => {
                    let stored = Settings::read(&message.payload).ok_or(Error::Unreadable)?;
                    let differences = own.differences(&stored);
                    if !differences.is_empty() {
                        return Err(Error::Differ(differences));
                    }
                    let together = stored.with(own);
                    if together == stored {
                        return Ok(stored);
                    }
                    // Stored by a version that compared less.
                    (message.sequence, together)
                }
            };
            if self.write(&wanted, sequence).await? {
                return Ok(wanted);
            }
        }
        Err(Error::Nats(
            "too many dispatchers write them at once".into(),
        ))
    }

    /// Keeps the identity of the cluster.
    async fn replace(&self, own: &Settings) -> Result<Settings, Error> {
        for _ in 0..MAX_TRIES {
            let (sequence, mut wanted) = (self.read().await?, own.clone());
            let stored = sequence
                .as_ref()
                .and_then(|message| Settings::read(&message.payload));
            if let Some(stored) = stored {
                wanted.cluster = stored.cluster;
            }
            let sequence = sequence.map_or(0, |message| message.sequence);
            if self.write(&wanted, sequence).await? {
                return Ok(wanted);
            }
        }
        Err(Error::Nats(
            "too many dispatchers write them at once".into(),
        ))
    }

    async fn read(&self) -> Result<Option<StreamMessage>, Error> {
        let nats = |error: BoxError| Error::Nats(error);
        let stream = self.0.get_stream_no_info(BUCKET_STREAM).await;
        let stream = stream.map_err(|error| nats(error.into()))?;
        let read = stream.get_last_raw_message_by_subject(CLUSTER_KEY);
        match permitted("STREAM.MSG.GET", read).await? {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(nats(error.into())),
        }
    }

    /// False: another dispatcher was faster.
    async fn write(&self, settings: &Settings, expected: u64) -> Result<bool, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::EXPECTED_SEQUENCE, expected.to_string());
        let write = async {
            let sent = self
                .0
                .publish_with_headers(CLUSTER_KEY, headers, settings.text().into());
            sent.await?.await
        };
        match permitted(CLUSTER_KEY, write).await? {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(Error::Nats(error.into())),
        }
    }
}

fn is_deleted(message: &StreamMessage) -> bool {
    event::get(Some(&message.headers), header::KV_OPERATION).is_some()
}
