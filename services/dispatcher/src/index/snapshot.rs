//! All hooks at one revision, and which of them an event fires.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hookline_shared::event::{Event, Stored};
use hookline_shared::subject;

use super::Prepared;
use super::parts::Parts;

/// All hooks at one revision. A copy is cheap, and so is a change of one that has copies.
#[derive(Default, Clone)]
pub struct Snapshot {
    sources: HashMap<Arc<str>, Arc<Listeners>>,
    by_id: Parts<Arc<Prepared>>,
    unreadable: Arc<HashSet<String>>,
    hooks: usize,
    unusable: usize,
}

/// The hooks of one source.
#[derive(Default, Clone)]
struct Listeners {
    hooks: usize,
    any: Vec<Arc<Prepared>>,
    by_event: Parts<Vec<Arc<Prepared>>>,
}

impl Snapshot {
    /// The hook with that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Prepared>> {
        self.by_id.get(id)
    }

    /// Whether there is a hook with that id, be it one that cannot be read.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.get(id).is_some() || self.unreadable.contains(id)
    }

    /// How many hooks there are that can be read.
    #[must_use]
    pub fn hooks(&self) -> usize {
        self.hooks
    }

    /// How many of them cannot be used.
    #[must_use]
    pub fn unusable(&self) -> usize {
        self.unusable
    }

    /// The hooks that an event fires, each once: those that listen to all of its source, to its
    /// name, or to `name:operation`. A ping fires the hook that it is addressed to.
    #[must_use]
    pub fn matching(&self, event: &Event, stored: Stored) -> Vec<Arc<Prepared>> {
        if event.source == subject::PING_SOURCE {
            let addressed = event.addressed_to.as_deref().and_then(|id| self.get(id));
            return addressed.cloned().into_iter().collect();
        }
        let Some(listeners) = self.sources.get(event.source.as_str()) else {
            return Vec::new();
        };
        let with_operation = event
            .operation()
            .map(|operation| [&event.name, ":", operation].concat());
        let named = [Some(&event.name), with_operation.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|name| listeners.by_event.get(name))
            .flatten();
        listeners
            .any
            .iter()
            .chain(named)
            .filter(|hook| hook.hears(event, stored))
            .cloned()
            .collect()
    }

    /// Adds a hook, in place of one with the same id.
    pub(super) fn insert(&mut self, prepared: Arc<Prepared>) {
        self.remove(&prepared.id);
        self.hooks += 1;
        self.unusable += usize::from(prepared.unusable);
        let id = &prepared.id;
        self.by_id
            .part(id)
            .insert(Arc::clone(id), Arc::clone(&prepared));
        let source = prepared.hook.source.as_str().into();
        let listeners = Arc::make_mut(self.sources.entry(source).or_default());
        listeners.hooks += 1;
        match &prepared.event_name {
            Some(event) => {
                let part = listeners.by_event.part(event);
                part.entry(Arc::clone(event)).or_default().push(prepared);
            }
            None => listeners.any.push(prepared),
        }
    }

    /// Notes that a hook is there, and cannot be read.
    pub(super) fn insert_unreadable(&mut self, id: String) {
        Arc::make_mut(&mut self.unreadable).insert(id);
    }

    /// Forgets all of a hook.
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
        let source = prepared.hook.source.as_str();
        let Some(listeners) = self.sources.get_mut(source).map(Arc::make_mut) else {
            return;
        };
        let others = |hook: &Arc<Prepared>| !Arc::ptr_eq(hook, &prepared);
        match &prepared.event_name {
            Some(event) => {
                let part = listeners.by_event.part(event);
                if let Some(hooks) = part.get_mut(event) {
                    hooks.retain(others);
                    if hooks.is_empty() {
                        part.remove(event);
                    }
                }
            }
            None => listeners.any.retain(others),
        }
        listeners.hooks -= 1;
        if listeners.hooks == 0 {
            self.sources.remove(source);
        }
    }
}
