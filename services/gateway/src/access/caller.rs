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
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Self {
            user: None,
            address: [127, 0, 0, 1].into(),
            request: Uuid::nil(),
            method: "POST",
            path: "/consumers".to_owned(),
            workspace: "default".to_owned(),
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
        let Some(user) = user.filter(|user| user.permissions.name_things) else {
            return false;
        };
        let mut path: Vec<_> = schema
            .path
            .split('/')
            .map(|segment| vec![segment])
            .collect();
        path.push([row.id.as_str()].into_iter().chain(row.name()).collect());
        user.permissions.forbid(workspace, &path, Action::Read)
    }

    /// One who changes what is their own: what else they may do is not asked.
    pub(crate) fn for_own(&self) -> Self {
        Self {
            asks: None,
            ..self.clone()
        }
    }
}
