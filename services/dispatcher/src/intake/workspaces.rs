//! Events in workspaces that nobody made. Hooks of all workspaces hear them; they are counted, and each such workspace
//! is warned about once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use hookline_shared::event;
use hookline_shared::subject::{
    ALL_WORKSPACES, BUCKET_STREAM, DEFAULT_WORKSPACE, header, unique_key,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Workspaces that a worker remembers.
const REMEMBERED: usize = 1_000;
/// The most workspaces that are warned about: names cost a publisher nothing.
const WARNED: usize = 1_000;
/// An unknown one may have been made meanwhile, a known one deleted.
const AGAIN: Duration = Duration::from_secs(60);
const KIND: &str = "workspaces";

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Workspaces(Arc<Inner>);

struct Inner {
    seen: RwLock<HashMap<String, Seen>>,
    wanted: Notify,
    warned: Mutex<HashSet<String>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Seen {
    /// `None` until the bucket was asked.
    is_made: Option<bool>,
    asked: Instant,
    /// Events since it was seen, until the bucket has answered.
    events: u64,
}

impl Workspaces {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            seen: RwLock::default(),
            wanted: Notify::new(),
            warned: Mutex::default(),
            metrics,
        }))
    }

    /// Notes an event's workspace.
    pub(crate) fn note(&self, name: &str) {
        if name == DEFAULT_WORKSPACE {
            return;
        }
        let inner = &self.0;
        match inner.seen.read().get(name) {
            Some(seen) if seen.asked.elapsed() < AGAIN && seen.is_made == Some(true) => return,
            Some(seen) if seen.asked.elapsed() < AGAIN && seen.is_made == Some(false) => {
                return inner.metrics.unknown_workspace(1);
            }
            _ => {}
        }
        let mut all = inner.seen.write();
        if all.len() >= REMEMBERED && !all.contains_key(name) {
            all.clear();
        }
        let seen = all.entry(name.to_owned()).or_insert_with(Seen::new);
        seen.is_made = None;
        seen.events += 1;
        inner.wanted.notify_one();
    }

    /// Asks the bucket; never returns.
    pub(crate) async fn run(self, context: jetstream::Context) {
        let inner = &self.0;
        loop {
            inner.wanted.notified().await;
            while let Some(name) = self.next() {
                let is_made = is_made(&context, &name).await;
                self.answered(&name, is_made);
            }
        }
    }

    fn next(&self) -> Option<String> {
        let seen = self.0.seen.read();
        let mut open = seen.iter().filter(|(_, seen)| seen.is_made.is_none());
        open.next().map(|(name, _)| name.clone())
    }

    fn answered(&self, name: &str, is_made: bool) {
        let mut all = self.0.seen.write();
        let Some(seen) = all.get_mut(name) else {
            return;
        };
        (seen.is_made, seen.asked) = (Some(is_made), Instant::now());
        let events = std::mem::take(&mut seen.events);
        if is_made {
            return;
        }
        self.0.metrics.unknown_workspace(events);
        let mut warned = self.0.warned.lock();
        if warned.len() < WARNED && warned.insert(name.to_owned()) {
            tracing::warn!(
                workspace = name,
                "events come in a workspace that nobody made: only hooks of all workspaces hear them"
            );
        }
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            is_made: None,
            asked: Instant::now(),
            events: 0,
        }
    }
}

/// In doubt, it is.
async fn is_made(context: &jetstream::Context, name: &str) -> bool {
    let Ok(bucket) = context.get_stream_no_info(BUCKET_STREAM).await else {
        return true;
    };
    let key = unique_key(ALL_WORKSPACES, KIND, "name", name);
    match bucket.get_last_raw_message_by_subject(&key).await {
        Ok(held) => event::get(Some(&held.headers), header::KV_OPERATION).is_none(),
        Err(error) => error.kind() != LastRawMessageErrorKind::NoMessageFound,
    }
}
