//! A hook, ready for use.

use std::sync::Arc;
use std::time::Duration;

use hookline_shared::event::{Event, Stored};
use hookline_shared::hook::Hook;
use hookline_shared::retry::Policy;
use hookline_shared::subject;

use crate::admission::Admission;
use crate::admission::suppression::Marks;
use crate::handler::Handler;

pub(crate) struct Prepared {
    /// The hook.
    pub hook: Hook,
    /// Its id.
    pub id: Arc<str>,
    /// The workspace that it hears, or [`subject::ALL_WORKSPACES`].
    pub workspace: String,
    /// Makes its attempts.
    pub handler: Box<dyn Handler>,
    /// Its event, as it is delivered; nothing: the event's own name.
    pub event_name: Option<Arc<str>>,
    /// When attempts are repeated.
    pub policy: Policy,
    /// How old a delivery may become.
    pub max_age: Duration,
    pub admission: Admission,
    /// Why it cannot be used, if it cannot.
    pub(super) unusable: bool,
    pub(super) created: Created,
}

/// When a hook was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Created {
    pub(super) sequence: u64,
    pub(super) time: i128,
    /// By how much the clocks of the servers that stamp hooks and events may differ.
    pub(super) slack: i128,
}

impl Prepared {
    /// The name of its handler.
    pub(crate) fn handler_name(&self) -> &'static str {
        self.hook.handler.name()
    }

    /// Whether nothing but its circuit is to be asked about its deliveries.
    #[must_use]
    pub(crate) fn is_plain(&self) -> bool {
        self.admission.rate.is_none() && !Marks::are_kept_for(&self.hook)
    }

    /// Whether deliveries wait.
    #[must_use]
    pub(crate) fn is_paused(&self) -> bool {
        self.hook
            .delivery
            .as_ref()
            .is_some_and(|options| options.paused)
    }

    /// Whether the hook hears an event: its workspace's, and only what happened after it was made.
    pub(super) fn hears(&self, event: &Event, stored: Stored) -> bool {
        let after = match event.outbox_sequence {
            Some(sequence) => sequence > self.created.sequence && !self.is_made_by(event),
            None => stored.time + self.created.slack >= self.created.time,
        };
        after && (self.workspace == subject::ALL_WORKSPACES || self.workspace == event.workspace)
    }

    /// Whether the event tells that this very hook was created: it follows the hook in one batch.
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
