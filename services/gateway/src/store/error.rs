//! Why the store refuses or fails, and what a failed batch or read means.

use hookline_shared::{batch, stream_reader};

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
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// Nobody knows whether the change was stored.
    #[error(
        "NATS did not answer in time: the change may be stored or not, read before you repeat it"
    )]
    Unknown,
    /// The server refused the change.
    #[error("the change was refused")]
    Refused(#[source] batch::Error),
}

impl Error {
    /// The outcome of a write, as metrics label it.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Unique { .. } | Self::PrimaryKey { .. } | Self::Stale => "conflict",
            Self::MissingParent { .. } | Self::Referenced { .. } => "reference",
            Self::Unknown => "unknown",
            Self::DefaultWorkspace
            | Self::TooLarge
            | Self::Full
            | Self::Contended
            | Self::Unavailable(_)
            | Self::Refused(_) => "failed",
        }
    }
}

/// What a refused or failed batch means, where nothing can be found out by reading.
impl From<batch::Error> for Error {
    fn from(error: batch::Error) -> Self {
        match error {
            batch::Error::Full => Self::Full,
            batch::Error::TooLarge => Self::TooLarge,
            batch::Error::Unavailable | batch::Error::Closed => {
                Self::Unavailable(Some(Box::new(error)))
            }
            batch::Error::Unknown => Self::Unknown,
            batch::Error::Conflict => Self::Stale,
            batch::Error::DuplicateId | batch::Error::Rejected { .. } => Self::Refused(error),
        }
    }
}

impl From<stream_reader::Error> for Error {
    fn from(error: stream_reader::Error) -> Self {
        Self::Unavailable(Some(error.into()))
    }
}
