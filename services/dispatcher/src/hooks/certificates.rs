//! The certificates and authorities that hooks name, and which hooks name them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hookline_shared::hook::Hook;
use hookline_shared::keyring;
use hookline_shared::subject::{self, AUTHORITY_KIND, CERTIFICATE_KIND};
use hookline_shared::vault::{self, Environment};
use hookline_shared::watch::Change;
use serde_json::{Map, Value};

use crate::handler::tls::Identity;

/// Workspace, kind and id.
type Key = (String, &'static str, String);

#[derive(Default)]
pub(super) struct Store {
    entries: HashMap<Key, Entry>,
    /// The hooks that name an entry, be it there or not.
    users: HashMap<Key, HashSet<String>>,
    /// Hooks that name some, as they were read.
    hooks: HashMap<String, (Change, Vec<Key>)>,
}

struct Entry {
    sequence: u64,
    /// Or why it cannot be used.
    parts: Result<Parts, String>,
}

/// In PEM.
struct Parts {
    certificate: Arc<str>,
    /// Not of an authority.
    key: Option<Arc<str>>,
}

/// Those that hooks of one workspace may name.
#[derive(Clone, Copy)]
pub(crate) struct Certificates<'a> {
    store: &'a Store,
    workspace: &'a str,
}

impl Store {
    pub(super) fn of<'a>(&'a self, workspace: &'a str) -> Certificates<'a> {
        Certificates {
            store: self,
            workspace: subject::home(workspace),
        }
    }

    /// Takes a change of an entry, and returns the hooks that name it, to be prepared anew.
    pub(super) fn apply(
        &mut self,
        workspace: String,
        kind: &'static str,
        id: String,
        change: &Change,
    ) -> Vec<Change> {
        let key = (workspace, kind, id);
        let known = self.entries.get(&key);
        if known.is_some_and(|known| known.sequence >= change.sequence) {
            return Vec::new();
        }
        match &change.value {
            None => {
                self.entries.remove(&key);
            }
            Some(value) => {
                let parts = read(value, kind, &key.0);
                let sequence = change.sequence;
                self.entries.insert(key.clone(), Entry { sequence, parts });
            }
        }
        let users = self.users.get(&key).into_iter().flatten();
        let hooks = users.filter_map(|hook| self.hooks.get(hook));
        hooks.map(|(change, _)| change.clone()).collect()
    }

    /// Remembers what a hook names.
    pub(super) fn add(&mut self, hook: &Hook, workspace: &str, change: &Change) {
        let named = hook.certificates().into_iter();
        let key =
            |(kind, id): (_, &str)| (subject::home(workspace).to_owned(), kind, id.to_owned());
        let named: Vec<_> = named.map(key).collect();
        for key in &named {
            let users = self.users.entry(key.clone()).or_default();
            users.insert(hook.id.clone());
        }
        if !named.is_empty() {
            let hook = hook.id.clone();
            self.hooks.insert(hook, (change.clone(), named));
        }
    }

    pub(super) fn remove(&mut self, hook: &str) {
        let Some((_, named)) = self.hooks.remove(hook) else {
            return;
        };
        for key in named {
            if let Some(users) = self.users.get_mut(&key) {
                users.remove(hook);
                if users.is_empty() {
                    self.users.remove(&key);
                }
            }
        }
    }
}

impl Certificates<'_> {
    /// The error is a sentence for the hook's owner.
    pub(crate) fn authority(&self, id: &str) -> Result<Arc<str>, String> {
        let parts = self.find(AUTHORITY_KIND, "config.ca_certificates", id)?;
        Ok(Arc::clone(&parts.certificate))
    }

    pub(crate) fn identity(&self, id: &str) -> Result<Identity, String> {
        let field = "config.client_certificate";
        let parts = self.find(CERTIFICATE_KIND, field, id)?;
        let key = parts.key.as_ref();
        let key = key.ok_or_else(|| format!("{field}: {id} has no key"))?;
        Ok(Identity {
            certificate: Arc::clone(&parts.certificate),
            key: Arc::clone(key),
        })
    }

    fn find(&self, kind: &'static str, field: &str, id: &str) -> Result<&Parts, String> {
        let key = (self.workspace.to_owned(), kind, id.to_owned());
        let entry = self.store.entries.get(&key);
        let entry = entry.ok_or_else(|| format!("{field}: the workspace has no {kind} {id}"))?;
        let parts = entry.parts.as_ref();
        parts.map_err(|error| format!("{field}: {id} cannot be used: {error}"))
    }
}

/// The error quotes no value.
fn read(stored: &[u8], kind: &str, workspace: &str) -> Result<Parts, String> {
    let entity = serde_json::from_slice(stored);
    let mut entity: Map<String, Value> = entity.map_err(|_| "it is no entity".to_owned())?;
    keyring::open(kind, &mut entity).map_err(|missing| missing.to_string())?;
    vault::resolve(kind, &mut entity, workspace, &Environment)?;
    let text = |name: &str| Some(Arc::from(entity.get(name)?.as_str()?));
    Ok(Parts {
        certificate: text("cert").ok_or("it has no cert")?,
        key: text("key"),
    })
}
