//! Deletions. An entity that others may refer to is marked first, see [`guard`](super::guard). Those that go with it are
//! deleted while it is marked, each with its events, and then itself. A node that finds such a mark of one that crashed
//! goes on from there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use futures::StreamExt as _;
use hookline_shared::batch;
use hookline_shared::clock::unix_millis;
use hookline_shared::subject::{ALL_WORKSPACES, DEFAULT_WORKSPACE, header, home};

use super::Store;
use super::change::{Place, Write};
use super::error::Error;
use super::guard::is_abandoned;
use super::plan::unmarked;
use super::row::{Row, State};
use crate::access::Caller;
use crate::schema::Schema;

/// How long a deletion waits until this node's view must contain all children.
const VIEW_WAIT: Duration = Duration::from_secs(5);
/// Children that are deleted at the same time: their writes share batches.
const AT_ONCE: usize = 128;
const MAX_TRIES: u32 = 5;
/// Well before others take a deletion for abandoned.
const RENEW: Duration = Duration::from_secs(8);
/// Between looks for deletions that nobody finishes.
const LOOK: Duration = Duration::from_secs(5);

/// The deletions that this node is making, by kind and id, and how many requests make each.
#[derive(Debug, Default)]
pub(super) struct Cascades(Mutex<HashMap<(&'static str, String), usize>>);

/// One of them, until it is dropped.
struct Running<'a> {
    of: &'a Cascades,
    key: (&'static str, String),
}

impl Cascades {
    fn begin(&self, row: &Row) -> Running<'_> {
        let key = (row.schema.kind, row.id.clone());
        *self.0.lock().entry(key.clone()).or_default() += 1;
        Running { of: self, key }
    }

    fn is_running(&self, row: &Row) -> bool {
        self.0
            .lock()
            .contains_key(&(row.schema.kind, row.id.clone()))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.of.0.lock();
        if let Some(count) = running.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.key);
            }
        }
    }
}

impl Store {
    /// Deletes an entity, unless another refers to it. [`Error::Stale`] if it is newer than `row`.
    pub(crate) async fn delete(
        &self,
        place: Place,
        row: Arc<Row>,
        by: Arc<Caller>,
    ) -> Result<(), Error> {
        let user = Arc::clone(&by);
        let schema = row.schema;
        let is_workspace = schema.kind == Schema::workspaces().kind;
        if is_workspace
            && row
                .entity
                .get("name")
                .is_some_and(|name| name == DEFAULT_WORKSPACE)
        {
            return Err(Error::DefaultWorkspace);
        }
        if row.is_built_in() {
            return Err(Error::built_in(&row));
        }
        let delete = |row| Write {
            schema,
            place,
            old: Some(row),
            new: None,
            event: None,
            id_given: false,
            by,
        };
        if !is_workspace && schema.named_by().next().is_none() {
            return self.write(delete(row)).await;
        }
        if self.backlog.is_full() {
            return Err(Error::Full);
        }
        let _running = self.cascades.begin(&row);
        let marked = self.mark_unreferenced(row).await?;
        let marked = self.delete_children(marked, &user).await?;
        let result = self.write(delete(Arc::clone(&marked))).await;
        if result
            .as_ref()
            .is_err_and(|error| !matches!(error, Error::Stale | Error::Unknown))
        {
            self.unmark(&marked).await;
        }
        result
    }

    /// Marks an entity without children, so that none can be added.
    async fn mark_unreferenced(&self, row: Arc<Row>) -> Result<Arc<Row>, Error> {
        if let Some(by) = self.referrer(&row) {
            return Err(Error::Referenced {
                kind: row.schema.kind,
                by,
            });
        }
        if row.deleting.is_some_and(|since| !is_abandoned(since)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Err(Error::Stale);
        }
        let marked = self.mark(&row).await?;
        let seen = self.view.wait_for(marked.sequence, VIEW_WAIT).await;
        let by = self.referrer(&marked);
        if seen && by.is_none() {
            return Ok(Arc::new(marked));
        }
        self.unmark(&marked).await;
        Err(match by {
            Some(by) => Error::Referenced {
                kind: row.schema.kind,
                by,
            },
            None => Error::Unavailable(None),
        })
    }

    /// Deletes what goes with a marked entity, whose mark is renewed meanwhile.
    async fn delete_children(
        &self,
        mut marked: Arc<Row>,
        by: &Arc<Caller>,
    ) -> Result<Arc<Row>, Error> {
        let children = self.children_that_go_with(&marked);
        let deletions = children.into_iter().map(|child| {
            let place = Place {
                workspace: child.workspace.clone(),
                events: child.workspace.clone(),
                parent: None,
            };
            // Some have children of their own.
            Box::pin(self.delete_child(place, child, Arc::clone(by)))
        });
        let mut deletions = futures::stream::iter(deletions).buffer_unordered(AT_ONCE);
        let mut renewed = Instant::now();
        while let Some(deleted) = deletions.next().await {
            deleted?;
            if renewed.elapsed() > RENEW {
                marked = Arc::new(self.mark(&marked).await?);
                renewed = Instant::now();
            }
        }
        Ok(marked)
    }

    async fn delete_child(
        &self,
        place: Place,
        child: Arc<Row>,
        by: Arc<Caller>,
    ) -> Result<(), Error> {
        let mut child = Some(child);
        for _ in 0..MAX_TRIES {
            let Some(row) = child else {
                return Ok(());
            };
            match self
                .delete(place.clone(), Arc::clone(&row), Arc::clone(&by))
                .await
            {
                // Changed, or deleted by another node.
                Err(Error::Stale) => {
                    child = self.get_stored(row.schema, &row.workspace, &row.id).await?;
                }
                result => return result,
            }
        }
        Err(Error::Contended)
    }

    fn children_that_go_with(&self, row: &Row) -> Vec<Arc<Row>> {
        let kinds = row.schema.referenced_by().filter(|(child, field)| {
            let mut references = child.references();
            references.any(|reference| reference.field == *field && reference.cascades)
        });
        kinds
            .flat_map(|(child, field)| self.view.children(child, &row.workspace, field, &row.id))
            .collect()
    }

    /// Finishes deletions that other nodes began; never returns.
    pub(crate) async fn finish_deletions(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            for row in self.view.being_deleted() {
                let is_running = self.cascades.is_running(&row);
                if is_running || row.deleting.is_none_or(|since| !is_abandoned(since)) {
                    continue;
                }
                let place = Place {
                    workspace: row.workspace.clone(),
                    events: row.workspace.clone(),
                    parent: None,
                };
                let (kind, id) = (row.schema.kind, row.id.clone());
                let by = Arc::new(Caller::node(&row.workspace));
                let finished = self.delete(place, Arc::clone(&row), by).await;
                if matches!(finished, Err(Error::Referenced { .. })) {
                    // It was refused, and whoever was to say so is gone.
                    self.unmark(&row).await;
                }
                match finished {
                    Ok(()) => {
                        tracing::info!(kind, id, "finished a deletion that another node began")
                    }
                    Err(error) => tracing::debug!(kind, id, %error, "cannot finish a deletion yet"),
                }
            }
        }
    }

    async fn mark(&self, row: &Row) -> Result<Row, Error> {
        self.connected().await?;
        let write = Uuid::new_v4().to_string();
        let since = unix_millis();
        let mut mark = unmarked(row)
            .header(header::DELETING, since.to_string())
            .header(header::WRITE, &write);
        let cascading = row.cascading || !self.children_that_go_with(row).is_empty();
        if cascading {
            mark = mark.header(header::CASCADES, "1");
        }
        let sequence = match self.writer.commit(vec![mark]).await {
            Ok(committed) => committed.first_sequence,
            Err(batch::Error::Unknown) => {
                match self.state(row.schema, &row.workspace, &row.id).await? {
                    State::Live(now) if now.write.as_deref() == Some(&write) => now.sequence,
                    _ => return Err(Error::Stale),
                }
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Row {
            sequence,
            deleting: Some(since),
            cascading,
            write: Some(write),
            ..row.clone()
        })
    }

    async fn unmark(&self, marked: &Row) {
        if let Err(error) = self.writer.commit(vec![unmarked(marked)]).await {
            let kind = marked.schema.kind;
            tracing::debug!(%error, kind, "cannot remove a deletion mark, it stays until it expires");
        }
    }

    /// The kind of an entity that refers to this one.
    fn referrer(&self, row: &Row) -> Option<&'static str> {
        if row.schema.kind == Schema::workspaces().kind {
            let name = row.entity.get("name")?.as_str()?;
            return self.view.first_kind_in(name);
        }
        // What is for all workspaces names what is in `default`.
        let everywhere = (home(ALL_WORKSPACES) == row.workspace).then_some(ALL_WORKSPACES);
        let is_named = |child: &Schema, field| {
            let mut places = everywhere.into_iter().chain([row.workspace.as_str()]);
            places.any(|place| self.view.is_referenced(child, place, field, &row.id))
        };
        let goes_with = |child: &Schema, field: &str| {
            let mut references = child.references();
            references.any(|reference| reference.field == field && reference.cascades)
        };
        let named_by = row.schema.named_by();
        let mut named_by = named_by.filter(|(child, field)| !goes_with(child, field));
        let by = named_by.find(|(child, field)| is_named(child, field));
        by.map(|(child, _)| child.kind)
    }
}
