//! What roles permit: paths of the Admin API by workspace and action, as Kong has them. What one role forbids, no other
//! permits.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Map, Value, json};
use strum::{EnumString, IntoStaticStr};

use hookline_shared::subject::ALL_WORKSPACES;

use crate::schema::{Entity, Schema, is_uuid};
use crate::store::{Row, View};

const ANY: &str = "*";

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Action {
    Create,
    Delete,
    Read,
    Update,
}

impl Action {
    /// `None` for a method that no path has.
    pub(crate) fn of(method: &Method) -> Option<Self> {
        Some(match *method {
            Method::GET | Method::HEAD => Self::Read,
            Method::POST => Self::Create,
            Method::PATCH | Method::PUT => Self::Update,
            Method::DELETE => Self::Delete,
            _ => return None,
        })
    }
}

/// One endpoint of a role.
#[derive(Debug, Clone)]
struct Permission {
    /// A name, or `*`.
    workspace: String,
    /// As it was given: a path, or `*`.
    endpoint: String,
    /// Of the path; `None` for every path.
    segments: Option<Vec<String>>,
    actions: Vec<Action>,
    forbids: bool,
}

/// What the roles of one user permit and forbid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permissions {
    all: Vec<Permission>,
    /// Whether an endpoint names one thing, and so might name it otherwise than a request does.
    pub(crate) name_things: bool,
    /// Whether an endpoint forbids anything.
    pub(crate) forbids: bool,
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<T: IntoIterator<Item = Permission>>(permissions: T) -> Self {
        let all: Vec<_> = permissions.into_iter().collect();
        let mut segments = all.iter().flat_map(|one| one.segments.iter());
        let name_things = segments.any(|segments| {
            let mut after_the_kind = segments.iter().skip(1);
            after_the_kind.any(|segment| segment != ANY)
        });
        let forbids = all.iter().any(|one| one.forbids);
        Self {
            all,
            name_things,
            forbids,
        }
    }
}

impl Permissions {
    /// Of roles, by workspace and id. One that was deleted permits nothing.
    pub(crate) fn of(view: &View, roles: &[(String, String)]) -> Self {
        let mut permissions = Vec::new();
        for (workspace, role) in roles {
            if view.get(Schema::rbac_roles(), workspace, role).is_none() {
                continue;
            }
            let endpoints = view.children(Schema::rbac_role_endpoints(), workspace, "role", role);
            permissions.extend(
                endpoints
                    .iter()
                    .filter_map(|row| Permission::read(&row.entity)),
            );
        }
        permissions.into_iter().collect()
    }

    /// Whether an action is permitted on a path without its workspace. A segment has several texts if several name the
    /// same thing.
    pub(crate) fn allow(&self, workspace: &str, path: &[Vec<&str>], action: Action) -> bool {
        let mut permissions = self.all.iter().filter(|permission| !permission.forbids);
        permissions.any(|permission| permission.matches(workspace, path, action))
            && !self.forbid(workspace, path, action)
    }

    /// Whether a role forbids it, whatever others permit.
    pub(crate) fn forbid(&self, workspace: &str, path: &[Vec<&str>], action: Action) -> bool {
        let mut permissions = self.all.iter().filter(|permission| permission.forbids);
        permissions.any(|permission| permission.matches(workspace, path, action))
    }

    /// The workspaces in which something is permitted; `*` for all of them.
    pub(crate) fn reach(&self) -> BTreeSet<&str> {
        let permitting = self.all.iter().filter(|permission| !permission.forbids);
        permitting
            .map(|permission| permission.workspace.as_str())
            .collect()
    }

    pub(crate) fn reaches(&self, workspace: &str) -> bool {
        let reach = self.reach();
        reach.contains(ALL_WORKSPACES) || reach.contains(workspace)
    }

    /// As `/rbac/users/{user}/permissions` shows them.
    pub(crate) fn show(&self) -> Value {
        let mut endpoints = Map::new();
        for permission in &self.all {
            let of_workspace = endpoints
                .entry(permission.workspace.clone())
                .or_insert_with(|| json!({}));
            let path = match permission.endpoint.as_str() {
                ANY => ANY.to_owned(),
                path => format!("/{}{path}", permission.workspace),
            };
            of_workspace[path] = json!({
                "actions": permission.actions.iter().map(<&str>::from).collect::<Vec<_>>(), "negative": permission.forbids,
            });
        }
        json!({ "endpoints": endpoints, "entities": {} })
    }
}

impl Permission {
    fn read(endpoint: &Entity) -> Option<Self> {
        let text = |name: &str| endpoint.get(name)?.as_str().map(str::to_owned);
        let actions = endpoint.get("actions")?.as_array()?.iter();
        let endpoint_text = text("endpoint")?;
        let segments = segments(&endpoint_text).map(|segment| match is_uuid(segment) {
            true => segment.to_ascii_lowercase(),
            false => segment.to_owned(),
        });
        Some(Self {
            workspace: text("workspace")?,
            segments: (endpoint_text != ANY).then(|| segments.collect()),
            actions: actions
                .filter_map(|action| action.as_str()?.parse().ok())
                .collect(),
            forbids: endpoint.get("negative") == Some(&Value::Bool(true)),
            endpoint: endpoint_text,
        })
    }

    fn matches(&self, workspace: &str, path: &[Vec<&str>], action: Action) -> bool {
        // What is for all workspaces is forbidden where one of them forbids it.
        let applies = self.workspace == ANY
            || self.workspace == workspace
            || self.forbids && workspace == ANY;
        applies && self.actions.contains(&action) && self.matches_path(path)
    }

    fn matches_path(&self, path: &[Vec<&str>]) -> bool {
        let Some(segments) = &self.segments else {
            return true;
        };
        let mut pairs = segments.iter().zip(path);
        segments.len() == path.len()
            && pairs.all(|(wanted, names)| wanted == ANY || names.contains(&wanted.as_str()))
    }
}

fn segments(endpoint: &str) -> impl Iterator<Item = &str> {
    endpoint.split('/').filter(|segment| !segment.is_empty())
}

/// The workspaces that a change of such an entity gives rights in, or takes them away.
pub(crate) fn reach(
    view: &View,
    schema: &Schema,
    workspace: &str,
    row: &Entity,
) -> BTreeSet<String> {
    let id = || row.get("id").and_then(Value::as_str).unwrap_or_default();
    let owned = |permissions: Permissions| {
        let reach = permissions.reach().into_iter();
        reach.map(str::to_owned).collect()
    };
    if schema.kind == Schema::rbac_role_endpoints().kind {
        let workspace = row.get("workspace").and_then(Value::as_str);
        workspace.map(str::to_owned).into_iter().collect()
    } else if schema.kind == Schema::rbac_roles().kind {
        owned(Permissions::of(
            view,
            &[(workspace.to_owned(), id().to_owned())],
        ))
    } else {
        owned(Permissions::of(view, &roles(row)))
    }
}

/// The roles of a user, by workspace and id.
pub(crate) fn roles(user: &Entity) -> Vec<(String, String)> {
    let roles = user.get("roles").and_then(Value::as_array);
    let roles = roles.into_iter().flatten().filter_map(Value::as_str);
    roles
        .filter_map(|role| {
            let (workspace, id) = role.split_once('/')?;
            Some((workspace.to_owned(), id.to_owned()))
        })
        .collect()
}

/// A role as a user's entity has it.
pub(crate) fn role_of(row: &Row) -> String {
    format!("{}/{}", row.workspace, row.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(endpoints: &[(&str, &str, &str, bool)]) -> Permissions {
        let read = |&(workspace, endpoint, actions, negative): &(&str, &str, &str, bool)| {
            let actions: Vec<_> = actions.split(',').collect();
            let entity = json!({
                "workspace": workspace, "endpoint": endpoint, "actions": actions,
                "negative": negative,
            });
            Permission::read(entity.as_object().expect("an object")).expect("an endpoint")
        };
        endpoints.iter().map(read).collect()
    }

    fn allow(permissions: &Permissions, workspace: &str, path: &str, action: Action) -> bool {
        let path: Vec<_> = segments(path).map(|segment| vec![segment]).collect();
        permissions.allow(workspace, &path, action)
    }

    #[test]
    fn a_star_is_one_segment_and_alone_every_path() {
        let some = permissions(&[("team", "/consumers/*", "read", false)]);
        for (workspace, path, action, is_allowed) in [
            ("team", "/consumers/ada", Action::Read, true),
            ("team", "/consumers", Action::Read, false),
            ("team", "/consumers/ada/plugins", Action::Read, false),
            ("team", "/services/ada", Action::Read, false),
            ("team", "/consumers/ada", Action::Update, false),
            ("default", "/consumers/ada", Action::Read, false),
            ("*", "/consumers/ada", Action::Read, false),
        ] {
            assert_eq!(
                allow(&some, workspace, path, action),
                is_allowed,
                "{workspace} {path}"
            );
        }
        let all = permissions(&[("*", "*", "read,update", false)]);
        assert!(
            allow(&all, "any", "/a/b/c", Action::Update) && allow(&all, "*", "/", Action::Read)
        );
        assert!(!allow(&all, "any", "/a", Action::Delete));
        assert!(!allow(&Permissions::default(), "any", "/a", Action::Read));
    }

    #[test]
    fn what_one_role_forbids_no_other_permits() {
        let both = permissions(&[
            ("*", "/rbac/*", "read", true),
            ("team", "*", "create,delete,read,update", false),
        ]);
        assert!(!allow(&both, "team", "/rbac/users", Action::Read));
        assert!(allow(&both, "team", "/rbac/users", Action::Create));
        assert!(allow(&both, "team", "/rbac/users/x", Action::Read));
    }

    #[test]
    fn what_one_workspace_forbids_is_not_permitted_for_all() {
        let but_one = permissions(&[
            ("*", "*", "read", false),
            ("prod", "/event-hooks", "read", true),
        ]);
        assert!(allow(&but_one, "team", "/event-hooks", Action::Read));
        for workspace in ["prod", "*"] {
            assert!(!allow(&but_one, workspace, "/event-hooks", Action::Read));
        }
        assert!(allow(&but_one, "*", "/consumers", Action::Read));
    }

    #[test]
    fn a_thing_with_two_names_is_forbidden_by_either() {
        let one = permissions(&[
            ("*", "*", "read", false),
            ("*", "/consumers/ada", "read", true),
        ]);
        assert!(one.name_things);
        for names in [vec!["ada", "1"], vec!["1", "ada"]] {
            assert!(!one.allow("team", &[vec!["consumers"], names], Action::Read));
        }
        assert!(one.allow("team", &[vec!["consumers"], vec!["2"]], Action::Read));
        assert!(!permissions(&[("*", "/consumers/*", "read", false)]).name_things);
    }
}
