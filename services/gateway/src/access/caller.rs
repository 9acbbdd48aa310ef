//! Who makes a request.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::login::User;
use super::permissions::Action;
use crate::schema::Schema;
use crate::store::Row;

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

    /// Whether a role forbids to read an entity by one of its names.
    pub(crate) fn is_hidden(&self, workspace: &str, schema: &Schema, row: &Row) -> bool {
        let user = self.user.as_ref();
        let names_things = user.is_some_and(|user| user.permissions.name_things);
        names_things && self.is_forbidden(workspace, schema, Some(row), Action::Read)
    }

    /// Whether a role forbids something on a kind's own path, or on that of one entity: what is reached by another path is
    /// forbidden too.
    pub(crate) fn is_forbidden(
        &self,
        workspace: &str,
        schema: &Schema,
        row: Option<&Row>,
        action: Action,
    ) -> bool {
        let Some(user) = &self.user else {
            return false;
        };
        let segments = schema.path.split('/');
        let mut path: Vec<_> = segments.map(|segment| vec![segment]).collect();
        if let Some(row) = row {
            path.push([row.id.as_str()].into_iter().chain(row.name()).collect());
        }
        user.permissions.forbid(workspace, &path, action)
    }

    /// One who changes what is their own: what else they may do is not asked.
    pub(crate) fn for_own(&self) -> Self {
        Self {
            asks: None,
            ..self.clone()
        }
    }
}
