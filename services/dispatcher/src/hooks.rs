//! Which hooks there are: an immutable snapshot by source and event, swapped whole.
//!
//! A watch on the bucket keeps a table of hooks, each prepared once per change. Every change of a hook also writes
//! [`subject::HOOKS_REVISION`], after the hook and in the same batch. When the watch sees that key, the table
//! becomes the new snapshot. [`Index::catch_up`] asks the leader for the key's last sequence and waits until the
//! snapshot is as new. So a hook that was created anywhere before an event was published hears the event.

mod certificates;
mod gauges;
mod parts;
mod prepared;
mod snapshot;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use hookline_shared::event;
use hookline_shared::hook::{DeliveryOptions, Hook};
use hookline_shared::keyring;
use hookline_shared::retry::Policy;
use hookline_shared::subject::{self, AUTHORITY_KIND, CERTIFICATE_KIND, HOOK_KIND, header};
use hookline_shared::vault::{self, Environment};
use hookline_shared::watch::{self, Change, Update};
use serde_json::{Map, Value};
use tokio::sync::watch as signal;

use crate::admission::Admission;
use crate::admission::circuit_breaker::{self, CircuitBreaker};
use crate::admission::rate_limit::RateLimit;
use crate::attempt::failure_log::FailureLog;
use crate::handler::Handler;
use crate::handler::preparation::Shared;
use crate::handler::registry::{self, Unusable};
use crate::metrics::{About, Metrics};
use crate::nats::request::{self, NoAnswer};

use prepared::Created;

pub(crate) use certificates::Certificates;
pub(crate) use gauges::Gauges;
pub(crate) use prepared::Prepared;
pub(crate) use snapshot::Snapshot;

/// Changes after which a snapshot is made even if more follow.
const TOGETHER: usize = 256;

/// How long catching up may take before the caller tries again.
const CATCH_UP: Duration = Duration::from_secs(5);

/// In a NATS cluster, whose clocks may differ, a hook also hears events published this long before its creation.
/// Otherwise it might miss later ones.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

pub(crate) struct Index {
    snapshot: ArcSwap<Snapshot>,
    revision: signal::Sender<u64>,
    /// The bucket was replaced, and the snapshot is of the old one.
    is_void: AtomicBool,
    context: jetstream::Context,
    shared: Shared,
    defaults: Defaults,
    slack: i128,
    metrics: Metrics,
}

/// Settings of a hook that has none of its own.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// The retry schedule.
    pub policy: Policy,
    /// Attempts at the same time, per worker.
    pub concurrency: u32,
    pub circuit: circuit_breaker::Settings,
    /// Deliveries a second, over all workers.
    pub rate_limit: Option<f64>,
    /// Age at which a delivery is dead.
    pub max_age: Duration,
    /// The most deliveries that may wait.
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

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the bucket does not say how new the hooks are: {0}")]
    Revision(#[from] jetstream::stream::LastRawMessageError),
    #[error("the bucket does not say how new the hooks are: {0}")]
    NoAnswer(#[from] NoAnswer),
    #[error("the bucket is not there: {0}")]
    Bucket(#[from] jetstream::context::GetStreamError),
    #[error("the bucket takes no revision of its hooks: {0}")]
    First(#[from] jetstream::context::PublishError),
    #[error("the bucket is older than it was, so it is another one, which must be read first")]
    Replaced,
    #[error("the hook index did not reach revision {0} in time")]
    Lags(u64),
}

/// A hook as the bucket has it, with its secrets opened, and those of vaults in their place.
///
/// Without them it can hear events, but not call anybody: the second result says why.
fn read(stored: &[u8], workspace: &str) -> Result<(Hook, Result<(), String>), String> {
    let mut hook: Map<String, Value> =
        serde_json::from_slice(stored).map_err(|error| error.to_string())?;
    let opened = keyring::open(HOOK_KIND, &mut hook).map_err(|missing| missing.to_string());
    let secrets =
        opened.and_then(|_| vault::resolve(HOOK_KIND, &mut hook, workspace, &Environment));
    let hook = Hook::from_json(&Value::Object(hook)).map_err(|error| error.to_string())?;
    Ok((hook, secrets))
}

impl Index {
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
            is_void: AtomicBool::new(false),
            context,
            shared,
            defaults,
            metrics,
        })
    }

    #[must_use]
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Follows the bucket. Ends if the watch was away so long that the bucket must be read from the start.
    pub(crate) async fn follow(self: Arc<Self>) {
        let (mut table, mut newest, mut together) = (Table::default(), None, 0);
        let away = watch::follow(&self.context, subject::HOOKS_SUBJECTS, |update| {
            let change = match update {
                Update::Change(change) => change,
                // Messages are given back until it is there again.
                Update::Missing => return,
                // The old snapshot stands until the new one is known: without hooks, messages would be acked.
                Update::Replaced => {
                    (table, newest, together) = (Table::default(), None, 0);
                    self.metrics.per_hook().clear();
                    self.is_void.store(true, Ordering::Relaxed);
                    self.revision.send_replace(0);
                    return;
                }
            };
            together += 1;
            let more = change.more && together < TOGETHER;
            if change.subject == subject::HOOKS_REVISION {
                newest = Some(change.sequence);
            } else {
                self.apply(&mut table, change);
            }
            // Concurrent changes make one snapshot.
            if !more && let Some(revision) = newest.take() {
                together = 0;
                self.prepare_touched(&mut table);
                self.publish(&table.hooks, revision);
            }
        })
        .await;
        tracing::error!("{away}");
    }

    /// Waits until the snapshot has every hook stored before this call. After an error, try again.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        let started = Instant::now();
        let known = *self.revision.borrow();
        let wanted = self.newest().await?;
        if wanted < known {
            return Err(Error::Replaced);
        }
        if wanted == 0 && self.is_void.load(Ordering::Relaxed) {
            // No hook was ever made there.
            self.publish(&Snapshot::default(), 0);
        }
        let mut revision = self.revision.subscribe();
        let reached = revision.wait_for(|revision| *revision >= wanted);
        match tokio::time::timeout(CATCH_UP, reached).await {
            Ok(Ok(_)) => {}
            _ => return Err(Error::Lags(wanted)),
        }
        self.metrics.barrier(started.elapsed());
        Ok(())
    }

    /// The newest revision; 0 if there are no hooks.
    async fn newest(&self) -> Result<u64, Error> {
        let bucket = self
            .context
            .get_stream_no_info(subject::BUCKET_STREAM)
            .await?;
        // Not a direct get, which a lagging replica may answer.
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

    /// Writes the first revision of a bucket that has hooks and none: otherwise they would never be in a snapshot.
    /// Earlier versions kept the revision under another key.
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
        let Some((workspace, kind, id)) = subject::parse_entity_key(&change.subject) else {
            return;
        };
        let beside = [CERTIFICATE_KIND, AUTHORITY_KIND];
        match beside.into_iter().find(|known| *known == kind) {
            None => self.apply_hook(table, workspace, id, change),
            Some(kind) => {
                let hooks = table.certificates.apply(workspace, kind, id, &change);
                table.touched.extend(hooks);
            }
        }
    }

    fn apply_hook(&self, table: &mut Table, workspace: String, id: String, change: Change) {
        if table
            .sequences
            .get(&id)
            .is_some_and(|seen| *seen >= change.sequence)
        {
            return;
        }
        table.sequences.insert(id.clone(), change.sequence);
        self.take_out(table, &id);
        table.certificates.remove(&id);
        table.naming.remove(&id);
        let Some(value) = &change.value else {
            table.sequences.remove(&id);
            return;
        };
        let hook = read(value, &workspace).and_then(|(hook, secrets)| {
            if hook.id == id {
                Ok((hook, secrets))
            } else {
                Err(format!("it says that it is {}", hook.id))
            }
        });
        match hook {
            Ok(hook) if hook.0.certificates().is_empty() => {
                self.put_in(table, hook, workspace, &change);
            }
            Ok((hook, _)) => {
                table.certificates.add(&hook, &workspace);
                table.naming.insert(id.clone(), kept(&change));
                table.touched.insert(id);
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

    /// Prepares the hooks that name something which has changed, once all of it is known.
    fn prepare_touched(&self, table: &mut Table) {
        for id in std::mem::take(&mut table.touched) {
            let Some(change) = table.naming.get(&id).cloned() else {
                continue;
            };
            let place = subject::parse_entity_key(&change.subject);
            let (Some((workspace, ..)), Some(value)) = (place, &change.value) else {
                continue;
            };
            if let Ok(hook) = read(value, &workspace) {
                self.take_out(table, &id);
                self.put_in(table, hook, workspace, &change);
            }
        }
    }

    fn take_out(&self, table: &mut Table, id: &str) {
        if let Some(old) = table.hooks.get(id) {
            self.metrics.per_hook().remove(old.incarnation(), &old.id);
        }
        table.hooks.remove(id);
    }

    fn put_in(
        &self,
        table: &mut Table,
        hook: (Hook, Result<(), String>),
        workspace: String,
        change: &Change,
    ) {
        let created = Created {
            slack: self.slack,
            ..created(change)
        };
        // A change of what it names closes its circuit, as one of its own does.
        let revision = change.sequence.max(table.certificates.newest(&hook.0.id));
        let of = (workspace.clone(), table.certificates.of(&workspace));
        let prepared = self.prepare(hook, of, created, revision);
        let per_hook = self.metrics.per_hook();
        per_hook.add(prepared.incarnation(), &prepared.id);
        table.hooks.insert(Arc::new(prepared));
    }

    fn prepare(
        &self,
        (hook, secrets): (Hook, Result<(), String>),
        (workspace, certificates): (String, Certificates<'_>),
        created: Created,
        revision: u64,
    ) -> Prepared {
        let options = hook.options();
        // No hook may end the watch.
        let prepared = AssertUnwindSafe(|| registry::prepare(&hook, &self.shared, certificates));
        let prepared = secrets.and_then(|()| {
            std::panic::catch_unwind(prepared)
                .unwrap_or_else(|_| Err("preparing it failed unexpectedly".to_owned()))
        });
        let (handler, unusable) = match prepared {
            Ok(handler) => (handler, false),
            Err(reason) => {
                tracing::warn!(
                    hook = hook.id,
                    reason,
                    "a hook cannot be used, its deliveries wait"
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
            failures: FailureLog::default(),
            id: hook.id.as_str().into(),
            hook,
        }
    }

    fn publish(&self, hooks: &Snapshot, revision: u64) {
        self.metrics
            .index(hooks.hooks(), hooks.unusable(), revision);
        self.metrics.per_hook().choose(|id| {
            let hook = hooks.get(id)?;
            Some(About {
                handler: hook.handler_name(),
                source: &hook.hook.source,
                event: hook.hook.event.as_deref().unwrap_or_default(),
            })
        });
        self.snapshot.store(Arc::new(hooks.clone()));
        self.is_void.store(false, Ordering::Relaxed);
        self.revision.send_replace(revision);
        tracing::debug!(hooks = hooks.hooks(), revision, "the hook index is new");
    }
}

/// The state of the watch.
#[derive(Default)]
struct Table {
    hooks: Snapshot,
    certificates: certificates::Store,
    /// Hooks that name certificates, as they were read.
    naming: HashMap<String, Change>,
    /// Those to be prepared before the next snapshot.
    touched: HashSet<String>,
    sequences: HashMap<String, u64>,
}

/// A change to be kept: without the buffer that it was read into.
fn kept(change: &Change) -> Change {
    Change {
        value: change.value.as_deref().map(Bytes::copy_from_slice),
        ..change.clone()
    }
}

/// When the hook was first stored, which updates carry along.
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
