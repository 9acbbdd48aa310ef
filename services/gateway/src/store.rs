//! The state of all gateways: the bucket `KV_hookline`, and this node's view of it.
//!
//! A change of an entity is one atomic batch: the entity, the reservations of its unique values
//! and its events. Reads come from the view; before something is said not to be there, the bucket
//! itself is asked, since another node may have written it a moment ago.

mod backlog;
mod bootstrap;
mod delete;
mod guard;
mod lists;
mod locks;
mod plan;
mod read;
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

use hookline_shared::{batch, streams, subject};

use crate::metrics::Metrics;
use crate::schema::Schema;
use lists::Lists;

pub use backlog::watch_backlog;
pub use row::Row;
pub use view::{Cursor, Page, Query, Tags, View};
pub use watch::follow;
pub use write::Write;

/// How long a request waits for a lost connection before it is answered 503.
const RECONNECT_WAIT: Duration = Duration::from_secs(2);
/// What an event's headers may take of the space that is left for it.
const HEADER_ROOM: usize = 4 << 10;

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id is taken.
    #[error("primary key violation on key '{{id=\"{id}\"}}'")]
    PrimaryKey {
        /// The id.
        id: String,
    },
    /// Another entity has the value.
    #[error("UNIQUE violation detected on '{{{field}=\"{value}\"}}'")]
    Unique {
        /// The unique field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// A reference leads nowhere.
    #[error(
        "the foreign key '{{{key}=\"{value}\"}}' does not reference an existing '{kind}' entity."
    )]
    MissingParent {
        /// The field that refers.
        field: &'static str,
        /// The kind it refers to.
        kind: &'static str,
        /// By which field of the other entity.
        key: &'static str,
        /// The value that was not found.
        value: String,
    },
    /// Others refer to the entity.
    #[error("an existing '{by}' entity references this '{kind}' entity")]
    Referenced {
        /// The kind of the entity.
        kind: &'static str,
        /// The kind of those that refer to it.
        by: &'static str,
    },
    /// The default workspace was to be deleted.
    #[error("the default workspace cannot be deleted")]
    DefaultWorkspace,
    /// The entity or its event is larger than a message may be.
    #[error("Payload too large: the event of this change would be larger than an event may be")]
    TooLarge,
    /// Events are not consumed as fast as they are made, or the storage is full.
    #[error(
        "there is no room for more events: they are not dealt with as fast as they come, try again later"
    )]
    Full,
    /// The entity is not what it was when it was read.
    #[error("the entity was changed at the same time")]
    Stale,
    /// Too many others change the same entity.
    #[error("too many changes of the same entity at the same time, try again")]
    Contended,
    /// NATS cannot be reached.
    #[error("NATS is not reachable, try again later")]
    Unavailable(#[source] Option<Cause>),
    /// Nobody knows whether the change was stored.
    #[error(
        "NATS did not answer in time: the change may be stored or not, read before you repeat it"
    )]
    Unknown,
    /// The server refused the change.
    #[error("the change was refused")]
    Refused(#[source] batch::Error),
}

/// What is behind an [`Error::Unavailable`].
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Who raises events.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The node's name.
    pub node: String,
    /// The process id.
    pub pid: u32,
}

/// Where an entity belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The workspace it is kept under.
    pub workspace: String,
    /// The workspace its events are raised in.
    pub events: String,
    /// The id of the workspace's own entity, if it can be deleted.
    pub parent: Option<String>,
}

/// The bucket, and this node's view of it.
#[derive(Debug)]
pub struct Store {
    client: Client,
    bucket: Stream<()>,
    writer: batch::Writer,
    /// Writes parked deliveries, for replays.
    deliveries: batch::Writer,
    view: Arc<View>,
    origin: Origin,
    metrics: Metrics,
    backlog: backlog::Backlog,
    lists: Lists,
    /// One writer at a time for an entity; taken before those of [`values`](Self::values).
    entities: locks::Locks,
    /// One writer at a time for a unique value.
    values: locks::Locks,
}

impl Store {
    /// A store over streams that exist; long lists are read over a second connection, `asking`.
    ///
    /// # Errors
    /// If the name of the bucket's stream is not valid.
    pub async fn new(
        context: &jetstream::Context,
        asking: Client,
        writer: batch::Writer,
        origin: Origin,
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
            deliveries: batch::Writer::spawn(context.client(), None),
            view: Arc::new(View::default()),
            origin,
            metrics,
            backlog: backlog::Backlog::default(),
            lists: Lists::new(asking),
            entities: locks::Locks::default(),
            values: locks::Locks::default(),
        })
    }

    /// This node's view.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The writer of parked deliveries.
    pub(crate) fn deliveries(&self) -> &batch::Writer {
        &self.deliveries
    }

    /// A stream, without its state.
    pub(crate) async fn stream(&self, name: &str) -> Result<Stream<()>, Error> {
        let context = jetstream::new(self.client.clone());
        let stream = context.get_stream_no_info(name).await;
        stream.map_err(|error| Error::Unavailable(Some(error.into())))
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Deliveries and dead letters, as lists.
    pub(crate) fn lists(&self) -> &Lists {
        &self.lists
    }

    /// Whether NATS is connected right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Keeps other requests of this node from changing the same entity at the same time: they
    /// would be refused and tried again, one by one.
    pub async fn lock(&self, schema: &Schema, id: &str) -> MutexGuard<'_, ()> {
        self.entities.lock((schema.kind, id)).await
    }

    /// Waits a moment for a lost connection.
    pub(crate) async fn connected(&self) -> Result<(), Error> {
        let back = async {
            while !self.is_connected() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(RECONNECT_WAIT, back)
            .await
            .map_err(|_| Error::Unavailable(None))
    }

    fn max_event(&self) -> usize {
        streams::max_event_bytes(&self.client).saturating_sub(HEADER_ROOM)
    }
}

/// What a refused or failed batch means, where nothing can be found out by reading.
pub(crate) fn refusal(error: batch::Error) -> Error {
    match error {
        batch::Error::Full => Error::Full,
        batch::Error::TooLarge => Error::TooLarge,
        batch::Error::Unavailable | batch::Error::Closed => {
            Error::Unavailable(Some(Box::new(error)))
        }
        batch::Error::Unknown => Error::Unknown,
        batch::Error::Conflict => Error::Stale,
        batch::Error::DuplicateId | batch::Error::Rejected { .. } => Error::Refused(error),
    }
}
