//! Who makes a request.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::entity_paths::{self, EntityPath, Part};
use super::login::User;
use super::permissions::Action;
use crate::schema::{Entity, Schema};
use crate::store::{Row, View};

/// As handlers know it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None` where requests need no token.
    pub(crate) user: Option<Arc<User>>,
    pub(crate) address: IpAddr,
    /// Id of the request.
    pub(crate) request: Uuid,
    pub(crate) method: &'static str,
    /// Without its query.
    pub(crate) path: String,
    /// That the path leads to; `*` for all of them, and for what is in none.
    pub(crate) workspace: String,
    /// What the path asks for: without the workspace, as roles name it.
    pub(crate) asks: Option<(Arc<[String]>, Action)>,
}

impl Caller {
    /// A node that finishes what another began.
    pub(crate) fn node(workspace: &str) -> Self {
        Self {
            user: None,
            address: [127, 0, 0, 1].into(),
            request: Uuid::nil(),
            method: "DELETE",
            path: String::new(),
            workspace: workspace.to_owned(),
            asks: None,
        }
    }

    /// Whether the same request would be permitted in another workspace too.
    pub(crate) fn may_in(&self, workspace: &str) -> bool {
        let (Some(user), Some((path, action))) = (&self.user, &self.asks) else {
            return true;
        };
        let path: Vec<_> = path.iter().map(|segment| vec![segment.as_str()]).collect();
        user.permissions.allow(workspace, &path, *action)
    }

    /// Whether there is anything in a workspace that they may do.
    pub(crate) fn reaches(&self, workspace: &str) -> bool {
        let user = self.user.as_ref();
        user.is_none_or(|user| user.permissions.reaches(workspace))
    }

    /// Whether a role forbids to read an entity, by one of its paths, or to list it beneath what it refers to.
    pub(crate) fn is_hidden(&self, view: &View, workspace: &str, row: &Row) -> bool {
        self.forbids(view, workspace, row.schema, &row.entity, Action::Read)
    }

    /// Whether a role forbids something on a path that leads to an entity, whichever the request took.
    pub(crate) fn forbids(
        &self,
        view: &View,
        workspace: &str,
        schema: &Schema,
        entity: &Entity,
        action: Action,
    ) -> bool {
        let Some(user) = self.restricted() else {
            return false;
        };
        let is_top_level = usize::from(schema.is_top_level);
        let items = entity_paths::paths(view, workspace, schema, entity, Part::Items);
        // The kind's own list is forbidden as a list: what is in it may be reached.
        let lists = entity_paths::paths(view, workspace, schema, entity, Part::Lists);
        let lists = lists.into_iter().skip(match action {
            Action::Create => 0,
            _ => is_top_level,
        });
        let mut paths = items.into_iter().chain(lists);
        paths.any(|path| user.permissions.forbid(workspace, &borrowed(&path), action))
    }

    /// The user, if some role forbids anything. What is their own they change whatever roles say.
    fn restricted(&self) -> Option<&User> {
        let user = self.user.as_deref().filter(|_| self.asks.is_some());
        user.filter(|user| user.permissions.forbids)
    }

    /// Whether a role forbids something on the list of a kind.
    pub(crate) fn forbids_list(&self, workspace: &str, schema: &Schema, action: Action) -> bool {
        let user = self.restricted().filter(|_| schema.is_top_level);
        let path = entity_paths::of_kind(schema);
        user.is_some_and(|user| user.permissions.forbid(workspace, &borrowed(&path), action))
    }

    /// Whether the caller might do something by a request for the list of a kind.
    pub(crate) fn may_on_list(&self, workspace: &str, schema: &Schema, action: Action) -> bool {
        let path = entity_paths::of_kind(schema);
        let user = self.user.as_ref();
        user.is_none_or(|user| user.permissions.allow(workspace, &borrowed(&path), action))
    }

    /// Whether the caller might do something to an entity by a request of its own: a path that leads there permits it,
    /// and none forbids it.
    pub(crate) fn may(
        &self,
        view: &View,
        workspace: &str,
        schema: &Schema,
        entity: &Entity,
        action: Action,
    ) -> bool {
        let Some(user) = &self.user else {
            return true;
        };
        let parts: &[Part] = match action {
            Action::Create => &[Part::Lists],
            Action::Read => &[Part::Lists, Part::Items],
            _ => &[Part::Items],
        };
        let paths = parts.iter();
        let mut paths =
            paths.flat_map(|part| entity_paths::paths(view, workspace, schema, entity, *part));
        paths.any(|path| user.permissions.allow(workspace, &borrowed(&path), action))
            && !self.forbids(view, workspace, schema, entity, action)
    }

    /// One who changes what is their own: what else they may do is not asked.
    pub(crate) fn for_own(&self) -> Self {
        Self {
            asks: None,
            ..self.clone()
        }
    }
}

fn borrowed(path: &EntityPath) -> Vec<Vec<&str>> {
    let segments = path.iter();
    segments
        .map(|names| names.iter().map(String::as_str).collect())
        .collect()
}
