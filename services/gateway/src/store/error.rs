//! The store's errors, and how failed batches and reads map to them.

use hookline_shared::hook::REDACTED;
use hookline_shared::keyring::MissingKey;
use hookline_shared::subject::BUCKET_STREAM;
use hookline_shared::watch::WHAT_TO_DO;
use hookline_shared::{batch, stream_reader};
use serde_json::Value;

use super::row::Row;
use crate::limits::Full;
use crate::metrics::WriteOutcome;
use crate::schema::{Schema, UniqueValue};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("primary key violation on key '{{id=\"{id}\"}}'")]
    PrimaryKey { id: String },
    #[error("UNIQUE violation detected on '{{{field}=\"{value}\"}}'")]
    Unique { field: &'static str, value: String },
    #[error("UNIQUE violation detected on '{value}'")]
    Together {
        /// As in the message.
        value: String,
        fields: Value,
    },
    #[error(
        "foreign keys unresolved ({field}.{key}: the foreign key cannot be resolved with '{{{key}=\"{value}\"}}' for an existing '{kind}' entity)"
    )]
    Unresolved {
        field: &'static str,
        kind: &'static str,
        key: &'static str,
        value: String,
    },
    #[error(
        "the foreign key '{{{key}=\"{value}\"}}' does not reference an existing '{kind}' entity."
    )]
    MissingParent {
        field: &'static str,
        kind: &'static str,
        /// Field of the parent by which it is referenced.
        key: &'static str,
        value: String,
    },
    #[error("an existing '{by}' entity references this '{kind}' entity")]
    Referenced {
        kind: &'static str,
        /// Kind of an entity that refers to it.
        by: &'static str,
    },
    #[error(transparent)]
    NoRoom(#[from] Full),
    /// What belongs to it goes first.
    #[error("Not found")]
    BeingDeleted,
    #[error("an entity may refer to at most {0} others")]
    TooManyReferences(usize),
    #[error("the default workspace cannot be deleted")]
    DefaultWorkspace,
    #[error("'{0}' is a built-in role: it can be neither changed nor deleted")]
    BuiltIn(String),
    #[error("{0}: it can only be deleted; docs/security.md says what to do")]
    Lost(MissingKey),
    #[error(
        "Payload too large: the event of this change would exceed the size limit of events (HOOKLINE_MAX_EVENT, and NATS' max_payload)"
    )]
    TooLarge,
    /// Carries how large one may be.
    #[error("the event is larger than {0} bytes")]
    LargeEvent(usize),
    #[error(
        "the event stream is full: events arrive faster than they are delivered, try again later"
    )]
    Full,
    #[error("the entity was changed concurrently")]
    Stale,
    #[error("too many concurrent changes of the same entity, try again")]
    Contended,
    #[error("NATS is not reachable, try again later")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    #[error("the bucket {BUCKET_STREAM} is missing in NATS: {WHAT_TO_DO}")]
    NoBucket,
    #[error(
        "the bucket {BUCKET_STREAM} takes no atomic batches, so it is not one that Hookline made: remove it and restart a service, or set allow_atomic with `nats stream edit`"
    )]
    NotAtomic,
    #[error(
        "NATS did not answer in time: the change may or may not be stored, read before retrying"
    )]
    Unknown,
    #[error("the change was refused")]
    Refused(#[source] batch::Error),
}

impl Error {
    pub(super) fn unique(schema: &Schema, unique: &UniqueValue) -> Self {
        if let Some(fields) = &unique.together {
            return Self::Together {
                value: unique.value.clone(),
                fields: fields.clone(),
            };
        }
        let mut hashed = schema.hashed_fields();
        let value = match hashed.any(|field| field == unique.field) {
            true => REDACTED.to_owned(),
            false => unique.value.clone(),
        };
        Self::Unique {
            field: unique.field,
            value,
        }
    }

    pub(super) fn built_in(row: &Row) -> Self {
        Self::BuiltIn(row.name().unwrap_or("it").to_owned())
    }

    /// The outcome of a write, as metrics label it.
    pub(super) fn outcome(&self) -> WriteOutcome {
        match self {
            Self::Unique { .. } | Self::Together { .. } | Self::PrimaryKey { .. } | Self::Stale => {
                WriteOutcome::Conflict
            }
            Self::MissingParent { .. } | Self::Unresolved { .. } | Self::Referenced { .. } => {
                WriteOutcome::Reference
            }
            Self::Unknown => WriteOutcome::Unknown,
            Self::NoRoom(_)
            | Self::BeingDeleted
            | Self::TooManyReferences(_)
            | Self::DefaultWorkspace
            | Self::BuiltIn(_)
            | Self::Lost(_)
            | Self::TooLarge
            | Self::LargeEvent(_)
            | Self::Full
            | Self::Contended
            | Self::Unavailable(_)
            | Self::NoBucket
            | Self::NotAtomic
            | Self::Refused(_) => WriteOutcome::Failed,
        }
    }
}

/// For batches whose result cannot be found out by reading.
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
            batch::Error::Rejected {
                code: batch::NOT_ATOMIC,
                ..
            } => Self::NotAtomic,
            batch::Error::DuplicateId | batch::Error::Rejected { .. } => Self::Refused(error),
        }
    }
}

impl From<stream_reader::Error> for Error {
    fn from(error: stream_reader::Error) -> Self {
        Self::Unavailable(Some(error.into()))
    }
}
