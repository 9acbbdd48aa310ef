//! Keeps the entities that a new entity refers to from being deleted meanwhile.
//!
//! A child's batch expects its parent's sequence. A deletion first marks the parent, which changes
//! that sequence, and then looks for children. So the deletion sees the child, or the child's batch
//! is refused and its retry sees the mark.

use std::time::Duration;

use hookline_shared::clock::unix_millis;

use super::Store;
use super::error::Error;
use super::plan::{Hold, Parent};
use super::row::{Row, State};

/// An older deletion mark was left by a node that crashed.
const MAX_MARK_AGE: Duration = Duration::from_secs(30);
/// Polls of a marked parent until its deletion is committed or abandoned.
const POLLS: u32 = 20;
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Store {
    /// How to hold the parents. `fresh` reads the bucket, after the view's answer was refused.
    pub(super) async fn hold_all(
        &self,
        parents: &[Parent],
        fresh: bool,
    ) -> Result<Vec<Hold>, Error> {
        let mut holds = Vec::with_capacity(parents.len());
        for parent in parents {
            holds.push(self.hold(parent, fresh).await?);
        }
        Ok(holds)
    }

    async fn hold(&self, parent: &Parent, fresh: bool) -> Result<Hold, Error> {
        let known = self.view.get(parent.schema, &parent.workspace, &parent.id);
        if let Some(row) = known.as_ref().filter(|row| row.is_built_in()) {
            return Err(Error::built_in(row));
        }
        if let Some(row) = known.filter(|row| !fresh && row.deleting.is_none()) {
            return Ok(guard(&row));
        }
        for _ in 0..POLLS {
            match self
                .state(parent.schema, &parent.workspace, &parent.id)
                .await?
            {
                State::Absent | State::Deleted { .. } => break,
                State::Live(row) => match row.deleting {
                    None => return Ok(guard(&row)),
                    Some(since) if is_abandoned(since) && !row.cascading => {
                        return Ok(Hold::Rewrite(row));
                    }
                    Some(_) => tokio::time::sleep(POLL_INTERVAL).await,
                },
            }
        }
        Err(Error::MissingParent {
            field: parent.field,
            kind: parent.schema.kind,
            key: "id",
            value: parent.id.clone(),
        })
    }
}

/// Whether the node that set a mark at this time (Unix milliseconds) must have crashed.
pub(super) fn is_abandoned(since: u64) -> bool {
    unix_millis().saturating_sub(since) > MAX_MARK_AGE.as_millis() as u64
}

fn guard(row: &Row) -> Hold {
    Hold::Guard {
        subject: row.subject(),
        sequence: row.sequence,
    }
}
