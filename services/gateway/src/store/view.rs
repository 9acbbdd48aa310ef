//! This node's copy of the bucket: every entity, ordered and indexed. The watch keeps it up to date.

mod counts;
mod query;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

use super::built_in;
use super::row::Row;
use crate::limits::Counts;
use crate::schema::{Schema, UniqueValue, Within};
use counts::Counted;
use table::Table;

pub(crate) use query::{Cursor, Page, Query, Tagged, Tags};

/// Kind, field and value.
type Everywhere = (&'static str, &'static str, String);

#[derive(Debug, Default)]
pub(crate) struct View {
    tables: RwLock<HashMap<String, HashMap<&'static str, Table>>>,
    /// Workspace and id by values that are unique over all workspaces.
    everywhere: RwLock<HashMap<Everywhere, (String, String)>>,
    counted: Counted,
    /// Entities whose children are being deleted with them: workspace, kind and id.
    being_deleted: Mutex<BTreeSet<(String, &'static str, String)>>,
    /// Counts changes of what users may do.
    access: AtomicU64,
    progress: Mutex<Progress>,
    pub(super) lagging: Notify,
    is_bucket_missing: AtomicBool,
    /// Notified when the view was cleared, since the bucket is another one.
    pub(crate) cleared: Notify,
}

/// The view's sequence, and waiters by the sequence that they wait for, so that each is woken once.
#[derive(Debug, Default)]
struct Progress {
    known: u64,
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
}

impl View {
    pub(crate) fn get(&self, schema: &Schema, workspace: &str, id: &str) -> Option<Arc<Row>> {
        self.read(schema, workspace, |table| table.get(id).cloned())
    }

    pub(crate) fn get_by_unique(
        &self,
        schema: &Schema,
        workspace: &str,
        field: &'static str,
        value: &str,
    ) -> Option<Arc<Row>> {
        self.read(schema, workspace, |table| {
            table.get_by_unique(field, value).cloned()
        })
    }

    /// By a value that no other entity of the kind has, in any workspace.
    pub(crate) fn get_anywhere(
        &self,
        schema: &Schema,
        field: &'static str,
        value: &str,
    ) -> Option<Arc<Row>> {
        let key = (schema.kind, field, value.to_owned());
        let (workspace, id) = self.everywhere.read().get(&key).cloned()?;
        self.get(schema, &workspace, &id)
    }

    /// Whether any entity has such a value, which is unique over all workspaces.
    pub(super) fn has_any(&self, field: &str) -> bool {
        let everywhere = self.everywhere.read();
        everywhere.keys().any(|(_, known, _)| *known == field)
    }

    /// The entity that has a unique value.
    pub(super) fn holder(
        &self,
        schema: &Schema,
        workspace: &str,
        unique: &UniqueValue,
    ) -> Option<Arc<Row>> {
        match unique.within {
            Within::Workspace => self.get_by_unique(schema, workspace, unique.field, &unique.value),
            Within::All => self.get_anywhere(schema, unique.field, &unique.value),
        }
    }

    /// The entities that refer to one.
    pub(crate) fn children(
        &self,
        child: &Schema,
        workspace: &str,
        field: &'static str,
        id: &str,
    ) -> Vec<Arc<Row>> {
        let found = self.read(child, workspace, |table| {
            let cursors = table.children.get(&(field, id.to_owned()))?.iter();
            let rows = cursors.filter_map(|cursor| table.rows.get(cursor).cloned());
            Some(rows.collect())
        });
        found.unwrap_or_default()
    }

    /// Changes with whatever may change what a user may do.
    pub(crate) fn access_version(&self) -> u64 {
        self.access.load(Ordering::Acquire)
    }

    /// Entities by creation time. A filter that few rows match may walk the whole table: in steps,
    /// between which writers and other tasks get their turn.
    pub(crate) async fn list(&self, schema: &Schema, workspace: &str, query: &Query) -> Page {
        if let Some((field, value)) = &query.unique {
            let rows = self.get_by_unique(schema, workspace, field, value);
            let rows = rows.into_iter().collect();
            return Page { rows, next: None };
        }
        let mut rows = Vec::new();
        let mut after = query.after.clone();
        while let Some(seen) = self.read(schema, workspace, |table| {
            table.list_step(query, after.as_ref(), &mut rows)
        }) {
            after = Some(seen);
            tokio::task::yield_now().await;
        }
        let more = rows.len() > query.size;
        rows.truncate(query.size);
        let last = rows.last().filter(|_| more);
        let next = last.map(|row| (row.created_at(), row.id.clone()));
        Page { rows, next }
    }

    /// All entities of a kind in a workspace.
    pub(crate) async fn all(&self, schema: &Schema, workspace: &str) -> Vec<Arc<Row>> {
        let query = Query {
            // One more is looked for.
            size: usize::MAX - 1,
            ..Query::default()
        };
        self.list(schema, workspace, &query).await.rows
    }

    /// What has tags in a workspace, or one tag, in order.
    pub(crate) fn tagged(
        &self,
        workspace: &str,
        tag: Option<&str>,
        after: Option<&Tagged>,
        size: usize,
    ) -> Vec<Tagged> {
        let tables = self.tables.read();
        let tables = tables.get(workspace).into_iter().flatten();
        let tagged = tables.flat_map(|(kind, table)| table.tagged(kind, tag, after).take(size));
        let mut tagged: Vec<_> = tagged.collect();
        tagged.sort_unstable();
        tagged.truncate(size);
        tagged
    }

    /// The forms that the polymorphic records of a kind have, in all workspaces.
    pub(crate) fn forms(&self, schema: &Schema) -> BTreeSet<String> {
        let tables = self.tables.read();
        let tables = tables.values().filter_map(|kinds| kinds.get(schema.kind));
        tables
            .flat_map(|table| table.forms.keys().cloned())
            .collect()
    }

    pub(super) fn being_deleted(&self) -> Vec<Arc<Row>> {
        let marked = self.being_deleted.lock().clone();
        let rows = marked
            .into_iter()
            .filter_map(|(workspace, kind, id)| self.get(Schema::by_kind(kind)?, &workspace, &id));
        rows.collect()
    }

    fn note_deletion(&self, row: &Row, begins: bool) {
        let key = (row.workspace.clone(), row.schema.kind, row.id.clone());
        let mut marked = self.being_deleted.lock();
        if begins {
            marked.insert(key);
        } else if !marked.is_empty() {
            marked.remove(&key);
        }
    }

    /// How many there are, without what comes with workspaces.
    pub(super) fn counts(&self, workspace: &str) -> Counts {
        self.counted.in_workspace(workspace)
    }

    /// How many of each kind there are.
    pub(crate) fn counts_by_kind(&self, workspace: &str) -> BTreeMap<&'static str, usize> {
        let tables = self.tables.read();
        let kinds = tables.get(workspace).into_iter().flatten();
        kinds
            .map(|(kind, table)| (*kind, table.rows.len()))
            .collect()
    }

    /// Whether a `child` refers to the entity `id`.
    pub(super) fn is_referenced(
        &self,
        child: &Schema,
        workspace: &str,
        field: &'static str,
        id: &str,
    ) -> bool {
        self.read(child, workspace, |table| {
            table.children.get(&(field, id.to_owned())).map(drop)
        })
        .is_some()
    }

    /// A kind with entities in the workspace.
    pub(super) fn first_kind_in(&self, workspace: &str) -> Option<&'static str> {
        let tables = self.tables.read();
        let kinds = tables.get(workspace)?.iter();
        kinds
            .filter(|(_, table)| !table.rows.values().all(|row| row.is_built_in()))
            .map(|(kind, _)| *kind)
            .min()
    }

    /// Whether there is no bucket to catch up with.
    pub(crate) fn is_bucket_missing(&self) -> bool {
        self.is_bucket_missing.load(Ordering::Relaxed)
    }

    pub(super) fn bucket_is_missing(&self) {
        self.is_bucket_missing.store(true, Ordering::Relaxed);
    }

    /// Forgets everything: there is another bucket.
    pub(super) fn clear(&self) {
        self.tables.write().clear();
        self.counted.clear();
        self.everywhere.write().clear();
        self.being_deleted.lock().clear();
        self.access.fetch_add(1, Ordering::AcqRel);
        self.progress.lock().known = 0;
        self.is_bucket_missing.store(false, Ordering::Relaxed);
        self.cleared.notify_one();
    }

    /// The sequence up to which the view has applied the bucket.
    pub(crate) fn sequence(&self) -> u64 {
        self.progress.lock().known
    }

    /// Waits until the view has applied this sequence. `false` after the timeout.
    pub(crate) async fn wait_for(&self, sequence: u64, timeout: Duration) -> bool {
        let caught_up = {
            let mut progress = self.progress.lock();
            if progress.known >= sequence {
                return true;
            }
            let (wake, caught_up) = oneshot::channel();
            progress.waiting.entry(sequence).or_default().push(wake);
            caught_up
        };
        let caught_up = tokio::time::timeout(timeout, caught_up).await.is_ok();
        if !caught_up {
            self.progress.lock().forget(sequence);
            self.lagging.notify_one();
        }
        caught_up
    }

    /// Applies the state of an entity, unless a newer one is known.
    pub(super) fn put(&self, row: Row) {
        let sequence = row.sequence;
        let (schema, built_in) = (row.schema, built_in::rows(&row));
        {
            let mut tables = self.tables.write();
            for row in built_in.into_iter().chain([row]) {
                let workspace = tables.entry(row.workspace.clone()).or_default();
                let table = workspace.entry(row.schema.kind).or_default();
                let old = table.get(&row.id).cloned();
                self.index(old.as_ref(), Some(&row));
                if old.as_ref().is_none_or(|old| old.sequence < row.sequence) {
                    self.note_deletion(&row, row.cascading && row.deleting.is_some());
                }
                let (name, kind, before) = (row.workspace.clone(), row.schema.kind, table.own);
                table.put(row);
                self.counted.note(&name, kind, before, table.own);
            }
        }
        self.changed(schema);
        self.advance(sequence);
    }

    pub(super) fn remove(&self, schema: &Schema, workspace: &str, id: &str, sequence: u64) {
        {
            let mut tables = self.tables.write();
            let old = tables
                .get(workspace)
                .and_then(|kinds| kinds.get(schema.kind)?.get(id))
                .filter(|row| row.sequence < sequence)
                .cloned();
            if let Some(old) = old {
                self.index(Some(&old), None);
                self.note_deletion(&old, false);
                for built_in in built_in::rows(&old) {
                    take(&mut tables, &built_in);
                }
                take(&mut tables, &old);
                let own = u64::from(!old.is_built_in());
                self.counted.note(workspace, schema.kind, own, 0);
            }
        }
        self.changed(schema);
        self.advance(sequence);
    }

    /// Keeps the values that are unique over all workspaces.
    fn index(&self, old: Option<&Arc<Row>>, new: Option<&Row>) {
        if old
            .zip(new)
            .is_some_and(|(old, new)| old.sequence >= new.sequence)
        {
            return;
        }
        let values = |row: &Row| -> Vec<_> {
            let unique = row.schema.unique_values(&row.entity).into_iter();
            let everywhere = unique.filter(|unique| unique.within == Within::All);
            everywhere
                .map(|unique| (row.schema.kind, unique.field, unique.value))
                .collect()
        };
        let (gone, come) = (
            old.map(|row| values(row)).unwrap_or_default(),
            new.map(values).unwrap_or_default(),
        );
        if gone.is_empty() && come.is_empty() {
            return;
        }
        let mut everywhere = self.everywhere.write();
        for key in gone {
            // Another entity may have taken the value.
            if everywhere.get(&key).map(|(_, id)| id) == old.map(|row| &row.id) {
                everywhere.remove(&key);
            }
        }
        if let Some(row) = new {
            let place = || (row.workspace.clone(), row.id.clone());
            everywhere.extend(come.into_iter().map(|key| (key, place())));
        }
    }

    fn changed(&self, schema: &Schema) {
        if schema.gives_rights() || schema.kind == Schema::workspaces().kind {
            self.access.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Notes that everything up to a sequence is applied.
    pub(super) fn advance(&self, sequence: u64) {
        let mut progress = self.progress.lock();
        if sequence <= progress.known {
            return;
        }
        progress.known = sequence;
        let later = progress.waiting.split_off(&(sequence + 1));
        let caught_up = std::mem::replace(&mut progress.waiting, later);
        for wake in caught_up.into_values().flatten() {
            // The waiter may have timed out.
            let _ = wake.send(());
        }
    }

    fn read<T>(
        &self,
        schema: &Schema,
        workspace: &str,
        read: impl FnOnce(&Table) -> Option<T>,
    ) -> Option<T> {
        let tables = self.tables.read();
        read(tables.get(workspace)?.get(schema.kind)?)
    }
}

/// Removes an entity, and the tables that had nothing else.
fn take(tables: &mut HashMap<String, HashMap<&'static str, Table>>, row: &Row) {
    let Some(kinds) = tables.get_mut(&row.workspace) else {
        return;
    };
    if let Some(table) = kinds.get_mut(row.schema.kind) {
        table.remove(&row.id);
        if table.rows.is_empty() {
            kinds.remove(row.schema.kind);
        }
    }
    if kinds.is_empty() {
        tables.remove(&row.workspace);
    }
}

impl Progress {
    /// Removes the waiters for a sequence that gave up.
    fn forget(&mut self, sequence: u64) {
        if let Some(waiting) = self.waiting.get_mut(&sequence) {
            waiting.retain(|wake| !wake.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(&sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests;
