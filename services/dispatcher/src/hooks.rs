//! The hooks, by source and event: an immutable snapshot that is swapped whole.
//!
//! A watch on the bucket keeps a table of hooks, each prepared once per change. When the watch
//! reaches [`subject::HOOKS_REVISION`], which every change of a hook writes after the hook itself in
//! the same batch, the table becomes the new snapshot. [`Index::catch_up`] asks the leader for that
//! key's last sequence and waits until the snapshot is as new: a hook that was created anywhere
//! before an event was published is always seen when the event is matched.

mod parts;
mod prepared;
mod snapshot;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use hookline_shared::event;
use hookline_shared::hook::{DeliveryOptions, Hook};
use hookline_shared::retry::Policy;
use hookline_shared::subject::{self, header};
use hookline_shared::watch::{self, Change};
use tokio::sync::watch as signal;

use crate::admission::Admission;
use crate::admission::circuit_breaker::{self, CircuitBreaker};
use crate::admission::rate_limit::RateLimit;
use crate::handler::Handler;
use crate::handler::preparation::Shared;
use crate::handler::registry::{self, Unusable};
use crate::metrics::Metrics;
use crate::nats::request::{self, NoAnswer};

use prepared::Created;

pub(crate) use prepared::Prepared;
pub(crate) use snapshot::Snapshot;

/// So many changes make a snapshot even while more come.
const TOGETHER: usize = 256;

/// How long a snapshot may take to catch up before the caller tries again.
const CATCH_UP: Duration = Duration::from_secs(5);

/// In a NATS cluster a hook also hears what was published that much before it was made: rather
/// that than miss what came after it, if the servers' clocks differ.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// The hook index.
pub(crate) struct Index {
    snapshot: ArcSwap<Snapshot>,
    revision: signal::Sender<u64>,
    context: jetstream::Context,
    shared: Shared,
    defaults: Defaults,
    slack: i128,
    metrics: Metrics,
}

/// What a hook gets where it says nothing.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// When attempts are repeated.
    pub policy: Policy,
    /// Attempts at the same time.
    pub concurrency: u32,
    /// When its circuit opens.
    pub circuit: circuit_breaker::Settings,
    /// Deliveries a second.
    pub rate_limit: Option<f64>,
    /// How old a delivery may become.
    pub max_age: Duration,
    /// How many deliveries may wait.
    pub backlog: u64,
}

impl Defaults {
    fn admission(&self, options: &DeliveryOptions, revision: u64) -> Admission {
        let own = options.circuit_breaker.clone().unwrap_or_default();
        let settings = circuit_breaker::Settings {
            failures: own.failures.unwrap_or(self.circuit.failures),
            failure_rate: own.failure_rate.unwrap_or(self.circuit.failure_rate),
            open: own.open().unwrap_or(self.circuit.open),
        };
        let rate = options.rate_limit.or(self.rate_limit);
        Admission::new(
            revision,
            CircuitBreaker::new(settings),
            rate.and_then(RateLimit::per_second),
            options.concurrency.unwrap_or(self.concurrency) as usize,
            self.backlog,
        )
    }
}

/// Why the index may be too old.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The bucket does not answer.
    #[error("the bucket does not say how new the hooks are: {0}")]
    Revision(#[from] jetstream::stream::LastRawMessageError),
    /// The bucket does not answer in time.
    #[error("the bucket does not say how new the hooks are: {0}")]
    NoAnswer(#[from] NoAnswer),
    /// The bucket cannot be opened.
    #[error("the bucket is not there: {0}")]
    Bucket(#[from] jetstream::context::GetStreamError),
    /// A bucket's first revision was not written.
    #[error("the bucket takes no revision of its hooks: {0}")]
    First(#[from] jetstream::context::PublishError),
    /// The watch lags.
    #[error("the hook index did not reach revision {0} in time")]
    Lags(u64),
}

impl Index {
    /// An empty index.
    #[must_use]
    pub(crate) fn new(
        context: jetstream::Context,
        shared: Shared,
        defaults: Defaults,
        metrics: Metrics,
    ) -> Arc<Self> {
        // The streams of a cluster may have their leaders on different machines.
        let clustered = context.client().server_info().cluster.is_some();
        Arc::new(Self {
            slack: if clustered {
                CLOCK_SLACK.as_nanos() as i128
            } else {
                0
            },
            snapshot: ArcSwap::default(),
            revision: signal::channel(0).0,
            context,
            shared,
            defaults,
            metrics,
        })
    }

    /// The hooks as they are known now.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Follows the bucket. Ends if that was away for so long that it must be read from the start.
    pub(crate) async fn follow(self: Arc<Self>) {
        let (mut table, mut newest, mut together) = (Table::default(), None, 0);
        let away = watch::follow(&self.context, subject::HOOKS_SUBJECTS, |change| {
            together += 1;
            let more = change.more && together < TOGETHER;
            if change.subject == subject::HOOKS_REVISION {
                newest = Some(change.sequence);
            } else {
                self.apply(&mut table, change);
            }
            // Changes that come together make one snapshot.
            if !more && let Some(revision) = newest.take() {
                together = 0;
                self.publish(&table.hooks, revision);
            }
        })
        .await;
        tracing::error!("{away}");
    }

    /// Waits until the index holds every hook that was stored before this call.
    ///
    /// # Errors
    /// If the bucket does not answer, or the watch lags for seconds: try again.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        let started = Instant::now();
        let wanted = self.newest().await?;
        let mut revision = self.revision.subscribe();
        let reached = revision.wait_for(|revision| *revision >= wanted);
        match tokio::time::timeout(CATCH_UP, reached).await {
            Ok(Ok(_)) => {}
            _ => return Err(Error::Lags(wanted)),
        }
        self.metrics.barrier(started.elapsed());
        Ok(())
    }

    /// The revision of the newest hook. 0 if there is none.
    async fn newest(&self) -> Result<u64, Error> {
        let bucket = self
            .context
            .get_stream_no_info(subject::BUCKET_STREAM)
            .await?;
        // Not a direct get: any replica answers those, and it may lag.
        let newest = request::with_retries(|| {
            bucket.get_last_raw_message_by_subject(subject::HOOKS_REVISION)
        });
        match newest.await? {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                self.first_revision(&bucket).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a bucket that has hooks and no revision its first one: without, none of them would be heard
    /// of. Earlier versions kept the revision under another key.
    async fn first_revision<I>(&self, bucket: &Stream<I>) -> Result<u64, Error> {
        let hook = request::with_retries(|| {
            bucket.get_last_raw_message_by_subject(subject::HOOKS_SUBJECTS)
        });
        match hook.await? {
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(0),
            hook => hook?,
        };
        let revision = PublishMessage::build().expected_last_subject_sequence(0);
        let context = &self.context;
        let written = context
            .send_publish(subject::HOOKS_REVISION, revision)
            .await?;
        let revision = written.await?.sequence;
        tracing::info!(
            revision,
            "the bucket's hooks had no revision, this is their first"
        );
        Ok(revision)
    }

    fn apply(&self, table: &mut Table, change: Change) {
        let Some((workspace, _, id)) = subject::parse_entity_key(&change.subject) else {
            return;
        };
        if table
            .sequences
            .get(&id)
            .is_some_and(|seen| *seen >= change.sequence)
        {
            return;
        }
        table.sequences.insert(id.clone(), change.sequence);
        let created = Created {
            slack: self.slack,
            ..created(&change)
        };
        table.hooks.remove(&id);
        let Some(value) = change.value else {
            table.sequences.remove(&id);
            return;
        };
        let hook = serde_json::from_slice(&value).map_err(|error| error.to_string());
        let hook = hook.and_then(|hook: Hook| {
            if hook.id == id {
                Ok(hook)
            } else {
                Err(format!("it says that it is {}", hook.id))
            }
        });
        match hook {
            Ok(hook) => {
                let prepared = self.prepare(hook, workspace, created, change.sequence);
                table.hooks.insert(Arc::new(prepared));
            }
            Err(error) => {
                tracing::error!(
                    hook = id,
                    error,
                    "a stored hook cannot be read, its deliveries wait"
                );
                table.hooks.insert_unreadable(id);
            }
        }
    }

    fn prepare(&self, hook: Hook, workspace: String, created: Created, revision: u64) -> Prepared {
        let options = hook.options();
        // Whatever a hook holds, it must not end the watch.
        let prepared = AssertUnwindSafe(|| registry::prepare(&hook, &self.shared));
        let prepared = std::panic::catch_unwind(prepared)
            .unwrap_or_else(|_| Err("preparing it failed unexpectedly".to_owned()));
        let (handler, unusable) = match prepared {
            Ok(handler) => (handler, false),
            Err(reason) => {
                tracing::warn!(
                    hook = hook.id,
                    reason,
                    "a hook cannot be used, its deliveries will be dead"
                );
                let reason = reason.into();
                (Box::new(Unusable { reason }) as Box<dyn Handler>, true)
            }
        };
        Prepared {
            workspace,
            handler,
            unusable,
            created,
            event_name: hook.event.as_deref().map(Arc::from),
            policy: options
                .retry_schedule()
                .map_or_else(|| self.defaults.policy.clone(), Policy::new),
            max_age: options.oldest().unwrap_or(self.defaults.max_age),
            admission: self.defaults.admission(&options, revision),
            id: hook.id.as_str().into(),
            hook,
        }
    }

    fn publish(&self, hooks: &Snapshot, revision: u64) {
        self.metrics
            .index(hooks.hooks(), hooks.unusable(), revision);
        self.snapshot.store(Arc::new(hooks.clone()));
        self.revision.send_replace(revision);
        tracing::debug!(hooks = hooks.hooks(), revision, "the hook index is new");
    }
}

/// What the watch has told so far.
#[derive(Default)]
struct Table {
    hooks: Snapshot,
    sequences: HashMap<String, u64>,
}

/// When the hook's first message was stored: an update carries it along.
fn created(change: &Change) -> Created {
    let kept = event::get(change.headers.as_ref(), header::CREATED).and_then(|text| {
        let (sequence, time) = text.split_once(' ')?;
        Some(Created {
            sequence: sequence.parse().ok()?,
            time: time.parse().ok()?,
            slack: 0,
        })
    });
    kept.unwrap_or(Created {
        sequence: change.sequence,
        time: change.time,
        slack: 0,
    })
}

#[cfg(test)]
mod tests;
