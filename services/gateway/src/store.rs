//! The state of all gateways: the bucket `KV_hookline`, and this node's view of it.
//!
//! A change of an entity is one atomic batch: the entity, the reservations of its unique values
//! and its events. Reads come from the view. Before an entity counts as missing, the bucket is read,
//! since another node may have just written it.

mod audit;
mod backlog;
mod bootstrap;
mod built_in;
mod change;
mod delete;
mod error;
mod forget;
mod guard;
mod lists;
mod locks;
mod plan;
mod publish;
mod read;
mod reseal;
mod row;
mod view;
mod watch;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::{self, stream::Stream};
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use hookline_shared::parking::is_storage_scarce;
use hookline_shared::subject::{ALL_WORKSPACES, DEFAULT_WORKSPACE};
use hookline_shared::{batch, subject};

use crate::access::TOKEN;
use crate::limits::{Quotas, Reserved};
use crate::metrics::Metrics;
use crate::schema::Schema;
use lists::Lists;

pub(crate) use change::{CustomEvent, Origin, Place, Write};
pub(crate) use error::Error;
pub(crate) use publish::Raised;
pub(crate) use reseal::Resealed;
pub(crate) use row::Row;
pub(crate) use view::{Cursor, Page, Query, Tagged, Tags, View};
pub(crate) use watch::follow;

/// How long a request waits for a lost connection before it is answered 503.
const RECONNECT_WAIT: Duration = Duration::from_secs(2);
/// For others who make what may be the last, or fail to.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// Reserved for headers in the size limit of an event.
const HEADER_BYTES: usize = 4 << 10;

#[derive(Debug)]
pub(crate) struct Store {
    client: Client,
    bucket: Stream<()>,
    writer: batch::Writer,
    /// Writes parked deliveries, for replays.
    deliveries: batch::Writer,
    view: Arc<View>,
    origin: Origin,
    hook_backlog: u64,
    quotas: Arc<Quotas>,
    metrics: Metrics,
    backlog: backlog::Backlog,
    events: publish::Events,
    lists: Lists,
    cascades: delete::Cascades,
    /// One document at a time for a workspace; taken before those of [`entities`](Self::entities).
    turns: locks::Locks,
    /// One writer at a time for an entity; taken before those of [`values`](Self::values).
    entities: locks::Locks,
    /// One writer at a time for a unique value.
    values: locks::Locks,
}

impl Store {
    /// The streams must exist. Long lists are read over the connection `lists`.
    pub(crate) async fn new(
        context: &jetstream::Context,
        lists: Client,
        (writer, deliveries, events): (batch::Writer, batch::Writer, batch::Writer),
        origin: Origin,
        (hook_backlog, max_event, quotas): (u64, usize, Arc<Quotas>),
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let bucket = context
            .get_stream_no_info(subject::BUCKET_STREAM)
            .await
            .map_err(|error| Error::Unavailable(Some(error.into())))?;
        Ok(Self {
            client: context.client(),
            bucket,
            writer,
            deliveries,
            view: Arc::new(View::default()),
            origin,
            hook_backlog,
            quotas,
            metrics,
            backlog: backlog::Backlog::new(max_event),
            events: publish::Events::new(events),
            lists: Lists::new(lists),
            cascades: delete::Cascades::default(),
            turns: locks::Locks::default(),
            entities: locks::Locks::default(),
            values: locks::Locks::default(),
        })
    }

    /// Of the digests of tokens: another in each cluster, and the same for its life.
    pub(crate) fn salt(&self) -> Result<String, Error> {
        let workspaces = Schema::workspaces();
        let default =
            self.view
                .get_by_unique(workspaces, ALL_WORKSPACES, "name", DEFAULT_WORKSPACE);
        // While another bucket is loaded there is none.
        default
            .map(|row| row.id.clone())
            .ok_or(Error::Unavailable(None))
    }

    /// Whether anybody has a token, as far as the view knows.
    pub(crate) fn has_users(&self) -> bool {
        self.view.has_any(TOKEN)
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    pub(crate) fn deliveries(&self) -> &batch::Writer {
        &self.deliveries
    }

    /// A stream, without fetching its state.
    pub(crate) async fn stream(&self, name: &str) -> Result<Stream<()>, Error> {
        let context = jetstream::new(self.client.clone());
        let stream = context.get_stream_no_info(name).await;
        stream.map_err(|error| Error::Unavailable(Some(error.into())))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn lists(&self) -> &Lists {
        &self.lists
    }

    /// Room for another entity. Others that are being made may leave some.
    pub(crate) async fn room(&self, schema: &Schema, workspace: &str) -> Result<Reserved, Error> {
        let is_hook = subject::is_followed_by_dispatchers(schema.kind);
        let there = || self.view.counts(workspace);
        let until = Instant::now() + ROOM_WAIT;
        loop {
            let changed = self.quotas.changed.notified();
            match self.quotas.reserve(workspace, is_hook, there) {
                Err(full) if !full.is_certain => {
                    let waited = tokio::time::timeout_at(until, changed).await;
                    waited.map_err(|_| Error::Contended)?;
                }
                certain => return Ok(certain?),
            }
        }
    }

    /// The most deliveries of one hook that may wait.
    pub(crate) fn hook_backlog(&self) -> u64 {
        self.hook_backlog
    }

    /// Whether nothing more may be parked. Credentials that may not ask have no limit.
    pub(crate) async fn is_storage_scarce(&self) -> bool {
        let context = jetstream::new(self.client.clone());
        let account = context.query_account().await;
        account.is_ok_and(|account| is_storage_scarce(&account))
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Watches the size of the event stream; never returns.
    pub(crate) async fn watch_backlog(&self, context: &jetstream::Context) {
        self.backlog.watch(context, &self.metrics).await;
    }

    /// Serializes this node's documents of one workspace.
    pub(crate) async fn turn(&self, workspace: &str) -> MutexGuard<'_, ()> {
        self.turns.lock(workspace).await
    }

    /// Serializes this node's changes of one entity: without it they would conflict and retry.
    pub(crate) async fn lock(&self, schema: &Schema, id: &str) -> MutexGuard<'_, ()> {
        self.entities.lock((schema.kind, id)).await
    }

    /// Waits up to [`RECONNECT_WAIT`] for a lost connection.
    pub(crate) async fn connected(&self) -> Result<(), Error> {
        let back = async {
            while !self.is_connected() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(RECONNECT_WAIT, back)
            .await
            .map_err(|_| Error::Unavailable(None))?;
        if self.view.is_bucket_missing() {
            return Err(Error::NoBucket);
        }
        Ok(())
    }

    fn max_event(&self) -> usize {
        self.backlog.max_event().saturating_sub(HEADER_BYTES)
    }
}
