//! Parents: what an entity refers to must not be deleted while the entity is made.
//!
//! The batch of a child is guarded by its parent's sequence. Who deletes a parent marks it first,
//! which changes its sequence, and looks for children then; so a child is either seen by the
//! deletion, or refused and sees the mark.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Store;
use super::error::Error;
use super::plan::{Hold, Parent};
use super::row::{Row, State};

/// A mark of deletion that is older was left by a node that crashed.
const MARK_AGE: Duration = Duration::from_secs(30);
/// How often a child looks whether a deletion of its parent is through, or was given up.
const LOOKS: u32 = 20;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

impl Store {
    /// Finds out how to hold parents; `fresh`: the view's answer was refused.
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
        if let Some(row) = known.filter(|row| !fresh && row.deleting.is_none()) {
            return Ok(guard(&row));
        }
        for _ in 0..LOOKS {
            match self
                .state(parent.schema, &parent.workspace, &parent.id)
                .await?
            {
                State::Absent | State::Deleted { .. } => break,
                State::Live(row) => match row.deleting {
                    None => return Ok(guard(&row)),
                    Some(since) if is_abandoned(since) => return Ok(Hold::Rewrite(row)),
                    Some(_) => tokio::time::sleep(LOOK_PAUSE).await,
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

/// Whether who set a mark at this time (Unix milliseconds) must have crashed since.
pub(super) fn is_abandoned(since: u64) -> bool {
    now_millis().saturating_sub(since) > MARK_AGE.as_millis() as u64
}

/// Unix milliseconds.
pub(super) fn now_millis() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.as_millis() as u64
}

fn guard(row: &Row) -> Hold {
    Hold::Guard {
        subject: row.subject(),
        sequence: row.sequence,
    }
}
