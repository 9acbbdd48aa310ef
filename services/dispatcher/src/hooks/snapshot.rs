//! All hooks at one revision, and the ones that an event fires.

use std::collections::HashSet;
use std::sync::Arc;

use hookline_shared::event::{Event, Stored};
use hookline_shared::subject;

use super::parts::Parts;
use super::prepared::Prepared;

/// Copies are cheap, and so are changes of a snapshot that has copies.
#[derive(Default, Clone)]
pub(crate) struct Snapshot {
    by_id: Parts<Arc<Prepared>>,
    /// Hooks by the source and event that they listen to, see [`place`].
    listeners: Parts<Vec<Arc<Prepared>>>,
    unreadable: Arc<HashSet<String>>,
    hooks: usize,
    unusable: usize,
}

/// The key of the hooks that listen to an event of a source, or to all its events.
fn place(source: &str, event: Option<&str>) -> String {
    // With the length, so that no source and event read like another source.
    let mut place = format!("{} {source}", source.len());
    place.extend(event.into_iter().flat_map(|event| ["/", event]));
    place
}

impl Snapshot {
    #[must_use]
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Prepared>> {
        self.by_id.get(id)
    }

    /// Those that can be read.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Prepared>> {
        self.by_id.values()
    }

    /// Whether the hook is unchanged.
    pub(crate) fn holds(&self, hook: &Arc<Prepared>) -> bool {
        let current = self.get(&hook.id);
        current.is_some_and(|current| Arc::ptr_eq(current, hook))
    }

    /// Includes hooks that cannot be read.
    #[must_use]
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.get(id).is_some() || self.unreadable.contains(id)
    }

    /// The number of hooks that can be read.
    #[must_use]
    pub(crate) fn hooks(&self) -> usize {
        self.hooks
    }

    /// The number of hooks whose handler cannot be prepared.
    #[must_use]
    pub(crate) fn unusable(&self) -> usize {
        self.unusable
    }

    /// The hooks that an event fires, each once: those that listen to its source, its name or `name:operation`.
    /// A ping fires the hook that it is addressed to.
    #[must_use]
    pub(crate) fn matching(&self, event: &Event, stored: Stored) -> Vec<Arc<Prepared>> {
        if event.source == subject::PING_SOURCE {
            let addressed = event.addressed_to.as_deref().and_then(|id| self.get(id));
            let own = addressed.filter(|hook| hook.is_pinged_by(event));
            return own.cloned().into_iter().collect();
        }
        let mut place = place(&event.source, None);
        let all = self.listeners.get(&place);
        place.extend(["/", &event.name]);
        let named = self.listeners.get(&place);
        let with_operation = event.operation().and_then(|operation| {
            place.extend([":", operation]);
            self.listeners.get(&place)
        });
        [all, named, with_operation]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|hook| hook.hears(event, stored))
            .cloned()
            .collect()
    }

    /// Replaces a hook with the same id.
    pub(super) fn insert(&mut self, prepared: Arc<Prepared>) {
        self.remove(&prepared.id);
        self.hooks += 1;
        self.unusable += usize::from(prepared.unusable);
        let id = &prepared.id;
        self.by_id
            .part(id)
            .insert(Arc::clone(id), Arc::clone(&prepared));
        let place = place(&prepared.hook.source, prepared.hook.event.as_deref());
        let listeners = self.listeners.part(&place);
        listeners.entry(place.into()).or_default().push(prepared);
    }

    pub(super) fn insert_unreadable(&mut self, id: String) {
        Arc::make_mut(&mut self.unreadable).insert(id);
    }

    pub(super) fn remove(&mut self, id: &str) {
        if self.unreadable.contains(id) {
            Arc::make_mut(&mut self.unreadable).remove(id);
        }
        if self.get(id).is_none() {
            return;
        }
        let Some(prepared) = self.by_id.part(id).remove(id) else {
            return;
        };
        self.hooks -= 1;
        self.unusable -= usize::from(prepared.unusable);
        let place = place(&prepared.hook.source, prepared.hook.event.as_deref());
        let part = self.listeners.part(&place);
        if let Some(hooks) = part.get_mut(place.as_str()) {
            hooks.retain(|hook| !Arc::ptr_eq(hook, &prepared));
            if hooks.is_empty() {
                part.remove(place.as_str());
            }
        }
    }
}
