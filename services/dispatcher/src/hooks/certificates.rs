//! The certificates and authorities that hooks name, and which hooks name them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hookline_shared::certificate;
use hookline_shared::hook::Hook;
use hookline_shared::keyring;
use hookline_shared::subject::{self, AUTHORITY_KIND, CERTIFICATE_KIND};
use hookline_shared::vault::{self, Environment};
use hookline_shared::watch::Change;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use serde_json::{Map, Value};

use crate::handler::tls::Named;

/// Workspace, kind and id.
type Key = (String, &'static str, String);

#[derive(Default)]
pub(super) struct Store {
    entries: HashMap<Key, Entry>,
    /// The hooks that name an entry, be it there or not.
    users: HashMap<Key, HashSet<String>>,
    /// What a hook names.
    named: HashMap<String, Vec<Key>>,
}

struct Entry {
    sequence: u64,
    /// Of the message that brought what is used of it.
    state: u64,
    texts: Texts,
    /// Or why it cannot be used.
    parsed: Result<Parsed, String>,
}

/// In PEM: a certificate and its key.
type Texts = (Option<String>, Option<String>);

enum Parsed {
    Authority(Arc<CertificateDer<'static>>),
    Identity(Arc<CertifiedKey>),
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

    /// Takes a change of an entry, and returns the hooks that it is news for.
    pub(super) fn apply(
        &mut self,
        workspace: String,
        kind: &'static str,
        id: String,
        change: &Change,
    ) -> Vec<String> {
        let key = (workspace, kind, id);
        let known = self.entries.get_mut(&key);
        if (known.as_ref()).is_some_and(|known| known.sequence >= change.sequence) {
            return Vec::new();
        }
        let Some(value) = &change.value else {
            self.entries.remove(&key);
            return self.users_of(&key);
        };
        let (texts, parsed) = read(value, kind, &key.0);
        if let Some(known) = known
            && known.texts == texts
            && known.parsed.is_ok()
        {
            known.sequence = change.sequence;
            return Vec::new();
        }
        let entry = Entry {
            sequence: change.sequence,
            state: change.sequence,
            texts,
            parsed,
        };
        self.entries.insert(key.clone(), entry);
        self.users_of(&key)
    }

    fn users_of(&self, key: &Key) -> Vec<String> {
        let users = self.users.get(key).into_iter().flatten();
        users.cloned().collect()
    }

    /// Remembers what a hook names.
    pub(super) fn add(&mut self, hook: &Hook, workspace: &str) {
        let named = hook.certificates().into_iter();
        let key =
            |(kind, id): (_, &str)| (subject::home(workspace).to_owned(), kind, id.to_owned());
        let named: Vec<_> = named.map(key).collect();
        for key in &named {
            let users = self.users.entry(key.clone()).or_default();
            users.insert(hook.id.clone());
        }
        if !named.is_empty() {
            self.named.insert(hook.id.clone(), named);
        }
    }

    /// The last change of anything that a hook names.
    pub(super) fn newest(&self, hook: &str) -> u64 {
        let named = self.named.get(hook).into_iter().flatten();
        let states = named.filter_map(|key| Some(self.entries.get(key)?.state));
        states.max().unwrap_or_default()
    }

    pub(super) fn remove(&mut self, hook: &str) {
        for key in self.named.remove(hook).unwrap_or_default() {
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
    pub(crate) fn authority(&self, id: &str) -> Result<Named<CertificateDer<'static>>, String> {
        let field = "config.ca_certificates";
        match self.find(AUTHORITY_KIND, field, id)? {
            (state, Parsed::Authority(parsed)) => Ok(named(id, state, parsed)),
            (_, Parsed::Identity(_)) => Err(format!("{field}: {id} is no authority")),
        }
    }

    pub(crate) fn identity(&self, id: &str) -> Result<Named<CertifiedKey>, String> {
        let field = "config.client_certificate";
        match self.find(CERTIFICATE_KIND, field, id)? {
            (state, Parsed::Identity(parsed)) => Ok(named(id, state, parsed)),
            (_, Parsed::Authority(_)) => Err(format!("{field}: {id} has no key")),
        }
    }

    fn find(&self, kind: &'static str, field: &str, id: &str) -> Result<(u64, &Parsed), String> {
        let key = (self.workspace.to_owned(), kind, id.to_owned());
        let entry = self.store.entries.get(&key);
        let entry = entry.ok_or_else(|| format!("{field}: the workspace has no {kind} {id}"))?;
        match &entry.parsed {
            Ok(parsed) => Ok((entry.state, parsed)),
            Err(error) => Err(format!("{field}: {id} cannot be used: {error}")),
        }
    }
}

fn named<T>(id: &str, state: u64, parsed: &Arc<T>) -> Named<T> {
    Named {
        id: id.into(),
        state,
        parsed: Arc::clone(parsed),
    }
}

/// The error quotes no value.
fn read(stored: &[u8], kind: &str, workspace: &str) -> (Texts, Result<Parsed, String>) {
    let opened = open(stored, kind, workspace);
    let entity = match opened {
        Ok(entity) => entity,
        Err(error) => return ((None, None), Err(error)),
    };
    let text = |name: &str| Some(entity.get(name)?.as_str()?.to_owned());
    let texts = (text("cert"), text("key"));
    let parsed = match &texts {
        (None, _) => Err("it has no cert".to_owned()),
        (Some(cert), None) => certificate::authority(cert)
            .map(|parsed| Parsed::Authority(Arc::new(parsed)))
            .map_err(|error| error.to_string()),
        (Some(cert), Some(key)) => certificate::with_key(cert, key)
            .map(Parsed::Identity)
            .map_err(|error| error.to_string()),
    };
    (texts, parsed)
}

fn open(stored: &[u8], kind: &str, workspace: &str) -> Result<Map<String, Value>, String> {
    let entity = serde_json::from_slice(stored);
    let mut entity: Map<String, Value> = entity.map_err(|_| "it is no entity".to_owned())?;
    keyring::open(kind, &mut entity).map_err(|missing| missing.to_string())?;
    // The second pair is stored only.
    entity.remove("key_alt");
    vault::resolve(kind, &mut entity, workspace, &Environment)?;
    Ok(entity)
}
