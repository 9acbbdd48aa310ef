//! The table of the Admin API's paths: what each leads to, and by which methods. The kinds of entities, and their
//! children, follow from the schema.

mod table;

use std::sync::LazyLock;

use crate::schema::{Schema, Scope};

/// One path.
#[derive(Debug)]
pub(super) struct Route {
    /// `{…}` stands for any text, as in `/event-hooks/{key}/ping`, and `{*…}` for all that follows.
    pub(super) pattern: String,
    pub(super) target: Target,
    /// Where what it leads to belongs; `None` if it is the node's and has no workspace before it.
    pub(super) scope: Option<Scope>,
    pub(super) access: Access,
    /// As in the `Allow` header.
    pub(super) methods: &'static str,
    /// The kind of entity, as a metric label.
    pub(super) kind: &'static str,
}

/// Who may use a path, where requests need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody, without a token.
    Open,
    /// Every user: it is about nobody else, or says what everybody may know.
    Users,
    /// As [`Access::Roles`], but every user may read: they see what their roles let them.
    Visible,
    /// Whom a role permits it.
    Roles,
}

/// What a path leads to; the texts that its pattern leaves open are the path's keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Node,
    Status,
    /// The paths themselves.
    Endpoints,
    /// The same, as clients and people read it.
    OpenApi,
    OpenApiPage,
    /// All entities of a workspace as one document.
    Config,
    /// Of a kind of entity.
    Schema,
    SchemaOfPlugin,
    /// The names of all plugins.
    EnabledPlugins,
    ValidateSchema,
    /// What has tags, or one of them.
    Tags,
    AuditRequests,
    Collection(&'static Schema),
    /// An entity, by id or endpoint key.
    Item(&'static Schema),
    /// The entities that refer to one.
    Children(Link),
    /// One of them.
    Child(Link),
    /// The consumers of a group, or the groups of a consumer.
    Members(&'static Schema),
    /// One of them.
    Member(&'static Schema),
    /// The rates of a group, by an older path than that of its plugin.
    GroupRates,
    /// Of an upstream's targets.
    Health,
    /// Says it of one target.
    MarkHealth(&'static str),
    /// Of its only address.
    MarkAddress(&'static str),
    /// The plugins that a partial is part of.
    PartialLinks,
    /// How many entities of each kind a workspace has.
    WorkspaceMeta,
    /// The entity that one refers to.
    Parent(Link),
    Sources,
    Ping,
    Test,
    HookStatus,
    Deliveries,
    RetryNow,
    Attempts,
    Replay,
    /// A hook's dead letters, or one of them.
    Dead,
    DeadEvents,
    DeadEvent,
    PublishDeadEvent,
    /// Accepts an invitation.
    Register,
    OwnToken,
    UserInfo,
    /// Of an admin or a user.
    UserRoles(&'static Schema),
    UserPermissions(&'static Schema),
    UserWorkspaces(&'static Schema),
    RolePermissions,
    /// An endpoint of a role, by its workspace and path.
    RoleEndpoint,
}

/// A kind whose entities refer to those of another by a field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) parent: &'static Schema,
    pub(super) child: &'static Schema,
    pub(super) field: &'static str,
}

impl Target {
    /// Whether all that changes there are entities, each with its audit record.
    pub(super) fn changes_entities(self) -> bool {
        match self {
            Self::Collection(_)
            | Self::Item(_)
            | Self::Children(_)
            | Self::Child(_)
            | Self::Parent(_)
            | Self::Members(_)
            | Self::Member(_)
            | Self::GroupRates
            | Self::MarkHealth(_)
            | Self::MarkAddress(_)
            | Self::Register
            | Self::OwnToken
            | Self::UserRoles(_)
            | Self::Config
            | Self::ValidateSchema
            | Self::RoleEndpoint => true,
            Self::Node
            | Self::Status
            | Self::Endpoints
            | Self::OpenApi
            | Self::OpenApiPage
            | Self::Schema
            | Self::SchemaOfPlugin
            | Self::EnabledPlugins
            | Self::Tags
            | Self::AuditRequests
            | Self::Health
            | Self::PartialLinks
            | Self::WorkspaceMeta
            | Self::Sources
            | Self::Ping
            | Self::Test
            | Self::HookStatus
            | Self::Deliveries
            | Self::RetryNow
            | Self::Attempts
            | Self::Replay
            | Self::Dead
            | Self::DeadEvents
            | Self::DeadEvent
            | Self::PublishDeadEvent
            | Self::UserInfo
            | Self::UserPermissions(_)
            | Self::UserWorkspaces(_)
            | Self::RolePermissions => false,
        }
    }

    /// Which of the path's keys may be a secret.
    pub(super) fn named_by_secret(self) -> Option<usize> {
        let (schema, at) = match self {
            Self::Item(schema) => (schema, 0),
            Self::Child(link) => (link.child, 1),
            Self::Parent(link) => (link.child, 0),
            _ => return None,
        };
        let key = schema.field(schema.endpoint_key?)?;
        (!key.is_public()).then_some(at)
    }

    /// The kind of entity that the first key names.
    pub(super) fn schema(self) -> Option<&'static Schema> {
        match self {
            Self::Collection(schema) | Self::Item(schema) => Some(schema),
            Self::Children(link) | Self::Child(link) => Some(link.parent),
            Self::Parent(link) => Some(link.child),
            Self::Members(schema) | Self::Member(schema) => Some(schema),
            Self::GroupRates => Some(Schema::consumer_groups()),
            Self::Health | Self::MarkHealth(_) | Self::MarkAddress(_) => Some(Schema::upstreams()),
            Self::PartialLinks => Some(Schema::partials()),
            Self::WorkspaceMeta => Some(Schema::workspaces()),
            Self::Node
            | Self::Status
            | Self::Endpoints
            | Self::OpenApi
            | Self::OpenApiPage
            | Self::Config
            | Self::Schema
            | Self::SchemaOfPlugin
            | Self::EnabledPlugins
            | Self::ValidateSchema
            | Self::Tags
            | Self::AuditRequests
            | Self::Sources
            | Self::DeadEvents
            | Self::DeadEvent
            | Self::PublishDeadEvent
            | Self::Register
            | Self::OwnToken
            | Self::UserInfo => None,
            Self::UserRoles(schema)
            | Self::UserPermissions(schema)
            | Self::UserWorkspaces(schema) => Some(schema),
            Self::RolePermissions | Self::RoleEndpoint => Some(Schema::rbac_roles()),
            Self::Ping
            | Self::Test
            | Self::HookStatus
            | Self::Deliveries
            | Self::RetryNow
            | Self::Attempts
            | Self::Replay
            | Self::Dead => Some(Schema::event_hooks()),
        }
    }
}

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(table::all);

impl Route {
    pub(super) fn all() -> &'static [Self] {
        &ROUTES
    }

    pub(super) fn allows(&self, method: &str) -> bool {
        self.methods.split(", ").any(|allowed| allowed == method)
    }

    /// The texts at the open places of the pattern, if the segments are so formed.
    pub(super) fn keys(&self, segments: &[String]) -> Option<Vec<String>> {
        let mut pattern = self.pattern.split('/').filter(|part| !part.is_empty());
        let mut keys = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let part = pattern.next()?;
            if part.starts_with("{*") {
                keys.push(segments[at..].join("/"));
                break;
            } else if part.starts_with('{') {
                keys.push(segment.clone());
            } else if part != segment {
                return None;
            }
        }
        pattern.next().is_none().then_some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_hides_another() {
        for (at, route) in Route::all().iter().enumerate() {
            let segments = route.pattern.split('/').filter(|part| !part.is_empty());
            let segments: Vec<_> = segments.map(str::to_owned).collect();
            let first = Route::all()
                .iter()
                .position(|one| one.keys(&segments).is_some());
            assert_eq!(first, Some(at), "{}", route.pattern);
        }
    }
}
