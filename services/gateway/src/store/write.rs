//! Commits one change: refused tries are examined and retried, and a lost result is recovered by
//! reading.

use std::time::{Duration, Instant};

use hookline_shared::batch;
use hookline_shared::trace::Sent;

use super::Store;
use super::change::Write;
use super::error::Error;
use super::plan::{Expected, Plan};
use super::read::Reservation;
use super::row::{Row, State};
use crate::metrics::WriteOutcome;

const MAX_TRIES: u32 = 8;
/// Between two tries.
const MAX_PAUSE: Duration = Duration::from_millis(200);
/// How long a write waits to appear in this node's view.
const VIEW_WAIT: Duration = Duration::from_secs(2);

impl Store {
    /// Commits a change together with its events, and waits until this node's view has it.
    /// [`Error::Stale`] if the entity is newer than `old`: read it and decide again.
    pub(crate) async fn write(&self, write: Write) -> Result<(), Error> {
        if self.backlog.is_full() {
            return Err(Error::Full);
        }
        if let Some(row) = write.old.as_ref().filter(|row| row.is_built_in()) {
            return Err(Error::built_in(row));
        }
        if let (Some(old), Some(_)) = (&write.old, &write.new)
            && let Some(missing) = &old.lost
        {
            return Err(Error::Lost(missing.clone()));
        }
        let is_going = |old: &Row| old.cascading && old.deleting.is_some();
        if write.new.is_some() && write.old.as_deref().is_some_and(is_going) {
            return Err(Error::BeingDeleted);
        }
        let started = Instant::now();
        let mut plan = Plan::new(&write, &self.origin, self.max_event())?;
        let _locks = self
            .values
            .lock_all(plan.takes.iter().map(|take| &take.subject))
            .await;
        let result = self.commit(&plan, write.old.as_deref()).await;
        if result.is_err() {
            plan.sent.drain(..).for_each(Sent::failed);
        }
        let outcome = result
            .as_ref()
            .map_or_else(Error::outcome, |_| WriteOutcome::Committed);
        self.metrics
            .wrote(write.schema.kind, outcome, started.elapsed());
        let sequence = result?;
        if !self.view.wait_for(sequence, VIEW_WAIT).await {
            tracing::warn!(
                sequence,
                kind = write.schema.kind,
                "a write did not appear in the view in time"
            );
        }
        Ok(())
    }

    /// Commits a plan and returns the sequence of the entity's message.
    async fn commit(&self, plan: &Plan, old: Option<&Row>) -> Result<u64, Error> {
        self.connected().await?;
        let mut expected = self.expected(plan, old).await?;
        let mut lost = false;
        for tried in 0..MAX_TRIES {
            if tried > 0 {
                let pause = Duration::from_millis(2) * 2_u32.pow(tried);
                tokio::time::sleep(pause.min(MAX_PAUSE)).await;
            }
            match self.writer.commit(plan.messages(&expected)).await {
                Ok(committed) => return Ok(committed.first_sequence),
                Err(batch::Error::Conflict | batch::Error::DuplicateId) => {}
                Err(batch::Error::Unknown) => lost = true,
                Err(error) if lost => {
                    tracing::warn!(%error, "the result of a write was lost");
                    return Err(Error::Unknown);
                }
                Err(error) => return Err(error.into()),
            }
            self.metrics.retried(plan.schema.kind);
            match self.examine(plan, &mut expected).await {
                Ok(Some(sequence)) => return Ok(sequence),
                Ok(None) => {}
                Err(Error::Unavailable(_)) if lost => return Err(Error::Unknown),
                Err(error) => return Err(error),
            }
        }
        Err(if lost {
            Error::Unknown
        } else {
            Error::Contended
        })
    }

    /// What the first try expects. If a value is taken in the view, the bucket is read, so that a
    /// taken name does not cost a refused batch.
    async fn expected(&self, plan: &Plan, old: Option<&Row>) -> Result<Expected, Error> {
        let mut expected = Expected {
            entity: old.map_or(0, |row| row.sequence),
            holds: self.hold_all(&plan.parents, false).await?,
            ..Expected::default()
        };
        for take in &plan.takes {
            let holder = self.view.holder(plan.schema, &plan.workspace, &take.unique);
            let taken = holder.is_some_and(|row| row.id != plan.id);
            expected.takes.push(if taken {
                self.free(plan, take).await?
            } else {
                0
            });
        }
        if plan.id_given {
            self.claim_id(plan, &mut expected).await?;
        }
        Ok(expected)
    }

    /// Finds out by reading why a try failed: `Some` sequence if it was stored after all, `None` if
    /// another try with the updated `expected` may succeed.
    async fn examine(&self, plan: &Plan, expected: &mut Expected) -> Result<Option<u64>, Error> {
        let state = self.state(plan.schema, &plan.workspace, &plan.id).await?;
        let (sequence, live, write) = match state {
            State::Absent => (0, false, None),
            State::Deleted { sequence, write } => (sequence, false, write),
            State::Live(row) => (row.sequence, true, row.write),
        };
        if write.as_deref() == Some(&plan.write) {
            return Ok(Some(sequence));
        }
        if plan.is_create && live {
            if plan.id_given {
                return Err(Error::PrimaryKey {
                    id: plan.id.clone(),
                });
            }
            // No other client knew the id: our write was stored, and changed since.
            return Ok(Some(sequence));
        }
        if !plan.is_create && sequence != expected.entity {
            return Err(Error::Stale);
        }
        expected.entity = sequence;
        for (take, expected) in plan.takes.iter().zip(&mut expected.takes) {
            *expected = self.free(plan, take).await?;
        }
        if plan.id_given {
            self.claim_id(plan, expected).await?;
        }
        expected.holds = self.hold_all(&plan.parents, true).await?;
        Ok(None)
    }

    /// The sequence at which a unique value is free to be taken.
    async fn free(&self, plan: &Plan, take: &super::plan::Take) -> Result<u64, Error> {
        match self.reservation(&take.subject).await? {
            Reservation::Free(sequence) => Ok(sequence),
            Reservation::Held { id, sequence } if id == plan.id => Ok(sequence),
            Reservation::Held { .. } => Err(Error::unique(plan.schema, &take.unique)),
        }
    }

    /// Expects that no workspace has an entity with the client's id. The claim's sequence is read
    /// first: an entity created since with the same id has changed it.
    async fn claim_id(&self, plan: &Plan, expected: &mut Expected) -> Result<(), Error> {
        use hookline_shared::subject::{entity_in_any_workspace, parse_entity_key};
        let claim = self.last_message(&plan.claim()).await?;
        expected.claim = claim.map_or(0, |message| message.sequence);
        let anywhere = entity_in_any_workspace(plan.schema.kind, &plan.id);
        let Some(message) = self.last_message(&anywhere).await? else {
            return Ok(());
        };
        if !super::read::is_deleted(&message) {
            return Err(Error::PrimaryKey {
                id: plan.id.clone(),
            });
        }
        let last = parse_entity_key(&message.subject).map(|(workspace, ..)| workspace);
        expected.entity = if last.as_deref() == Some(&plan.workspace) {
            message.sequence
        } else {
            match self.state(plan.schema, &plan.workspace, &plan.id).await? {
                State::Deleted { sequence, .. } => sequence,
                State::Absent | State::Live(_) => 0,
            }
        };
        Ok(())
    }
}
