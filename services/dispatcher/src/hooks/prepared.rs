//! A hook, ready for use.

use std::sync::Arc;
use std::time::Duration;

use hookline_shared::event::{Event, Stored};
use hookline_shared::hook::Hook;
use hookline_shared::retry::Policy;
use hookline_shared::subject;

use crate::admission::Admission;
use crate::admission::suppression::Marks;
use crate::attempt::failure_log::FailureLog;
use crate::handler::Handler;

pub(crate) struct Prepared {
    pub hook: Hook,
    pub id: Arc<str>,
    /// Or [`subject::ALL_WORKSPACES`].
    pub workspace: String,
    pub handler: Box<dyn Handler>,
    /// The event as it is delivered; None for the event's own name.
    pub event_name: Option<Arc<str>>,
    /// The retry schedule.
    pub policy: Policy,
    /// Age at which a delivery is dead.
    pub max_age: Duration,
    pub admission: Admission,
    pub failures: FailureLog,
    /// Its handler cannot be prepared.
    pub unusable: bool,
    pub(super) created: Created,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Created {
    pub(super) sequence: u64,
    pub(super) time: i128,
    /// By how much the clocks of the servers that stamp hooks and events may differ, in nanoseconds.
    pub(super) slack: i128,
}

impl Prepared {
    pub(crate) fn handler_name(&self) -> &'static str {
        self.hook.handler.name()
    }

    /// A hook that is made again under the id of a deleted one has another.
    #[must_use]
    pub(crate) fn incarnation(&self) -> u64 {
        self.created.sequence
    }

    /// Whether a stored delivery is this hook's, and not that of a deleted one with its id.
    #[must_use]
    pub(crate) fn owns(&self, incarnation: u64) -> bool {
        incarnation == 0 || incarnation == self.incarnation()
    }

    /// Whether only its circuit decides about deliveries: no rate limit, `snooze` or `on_change`.
    #[must_use]
    pub(crate) fn is_plain(&self) -> bool {
        self.admission.rate.is_none() && !Marks::are_kept_for(&self.hook)
    }

    #[must_use]
    pub(crate) fn is_paused(&self) -> bool {
        self.hook
            .delivery
            .as_ref()
            .is_some_and(|options| options.paused)
    }

    /// A hook hears the events of its workspace that happened after its creation.
    pub(super) fn hears(&self, event: &Event, stored: Stored) -> bool {
        let after = match event.outbox_sequence {
            Some(sequence) => sequence > self.created.sequence && !self.is_made_by(event),
            None => stored.time + self.created.slack >= self.created.time,
        };
        after && self.is_of(&event.workspace)
    }

    /// Whether a ping was raised by this hook's creation.
    pub(super) fn is_pinged_by(&self, event: &Event) -> bool {
        let sequence = event.outbox_sequence;
        sequence.is_some_and(|sequence| sequence > self.created.sequence)
            && self.is_of(&event.workspace)
    }

    #[must_use]
    pub(crate) fn is_of(&self, workspace: &str) -> bool {
        self.workspace == subject::ALL_WORKSPACES || self.workspace == workspace
    }

    /// Whether the event reports the hook's own creation, which it follows in the same batch.
    fn is_made_by(&self, event: &Event) -> bool {
        event.operation() == Some("create")
            && event.data().get("schema").and_then(|kind| kind.as_str()) == Some(subject::HOOK_KIND)
            && event
                .data()
                .get("entity")
                .and_then(|hook| hook.get("id")?.as_str())
                == Some(&self.hook.id)
    }
}
