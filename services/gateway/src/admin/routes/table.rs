//! The paths. The kinds of entities, and their children, follow from the schema.

use hookline_shared::subject::HOOK_KIND;

use super::{Access, Link, Route, Target};
use crate::schema::{Schema, Scope};

const SHOW: &str = "GET, HEAD, OPTIONS";
const LIST: &str = "GET, HEAD, OPTIONS, POST";
const ITEM: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT";
const ACT: &str = "OPTIONS, POST";
const MARK: &str = "OPTIONS, POST, PUT";
const DROP: &str = "DELETE, OPTIONS";
const SHOW_OR_DROP: &str = "DELETE, GET, HEAD, OPTIONS";

/// Those with fixed words before those where the same place is open.
pub(super) fn all() -> Vec<Route> {
    let mut routes = of_the_node();
    routes.extend(of_hooks());
    routes.extend(of_users());
    routes.extend(of_groups_and_upstreams());
    for schema in Schema::kinds() {
        routes.extend(of_kind(schema));
    }
    routes
}

fn of_the_node() -> Vec<Route> {
    let node = |pattern: &str, target| Route {
        pattern: pattern.to_owned(),
        target,
        scope: None,
        access: Access::Users,
        methods: SHOW,
        kind: "node",
    };
    // What it says is no secret.
    let open = |pattern: &str, target| Route {
        access: Access::Open,
        ..node(pattern, target)
    };
    // The same in each workspace, or about what its reader may see there.
    let of_workspace = |pattern: &str, target, methods| Route {
        scope: Some(Scope::Workspace),
        methods,
        ..node(pattern, target)
    };
    let dead = |pattern: &str, target, methods| Route {
        pattern: pattern.to_owned(),
        target,
        scope: None,
        access: Access::Roles,
        methods,
        kind: HOOK_KIND,
    };
    vec![
        node("/", Target::Node),
        node("/status", Target::Status),
        node("/endpoints", Target::Endpoints),
        open("/openapi.json", Target::OpenApi),
        open("/docs", Target::OpenApiPage),
        Route {
            access: Access::Roles,
            ..of_workspace("/config", Target::Config, LIST)
        },
        of_workspace("/kong", Target::Node, SHOW),
        of_workspace("/schemas/plugins/validate", Target::ValidateSchema, ACT),
        of_workspace("/schemas/plugins/{name}", Target::SchemaOfPlugin, SHOW),
        of_workspace("/schemas/{kind}", Target::Schema, SHOW),
        of_workspace("/plugins/enabled", Target::EnabledPlugins, SHOW),
        of_workspace("/plugins/schema/{name}", Target::SchemaOfPlugin, SHOW),
        of_workspace("/schemas/{kind}/validate", Target::ValidateSchema, ACT),
        of_workspace("/tags", Target::Tags, SHOW),
        of_workspace("/tags/{tag}", Target::Tags, SHOW),
        Route {
            pattern: "/audit/requests".to_owned(),
            target: Target::AuditRequests,
            scope: Some(Scope::WorkspaceOrAll),
            access: Access::Roles,
            methods: SHOW,
            kind: "node",
        },
        dead("/dead-events", Target::DeadEvents, SHOW_OR_DROP),
        dead("/dead-events/{key}", Target::DeadEvent, SHOW_OR_DROP),
        dead("/dead-events/{key}/publish", Target::PublishDeadEvent, ACT),
    ]
}

/// What hooks have beyond other entities.
fn of_hooks() -> Vec<Route> {
    let hooks = Schema::event_hooks();
    let route = |rest: &str, target, access, methods| Route {
        pattern: format!("/{}/{rest}", hooks.path),
        target,
        scope: Some(hooks.scope),
        access,
        methods,
        kind: HOOK_KIND,
    };
    let sources = |rest: &str| route(rest, Target::Sources, Access::Users, SHOW);
    let hook = |rest: &str, target, methods| route(rest, target, Access::Roles, methods);
    vec![
        sources("sources"),
        sources("sources/{source}"),
        sources("sources/{source}/{event}"),
        hook("{key}/ping", Target::Ping, SHOW),
        hook("{key}/test", Target::Test, ACT),
        hook("{key}/status", Target::HookStatus, SHOW),
        hook("{key}/deliveries", Target::Deliveries, SHOW),
        hook("{key}/deliveries/retry", Target::RetryNow, ACT),
        hook("{key}/attempts", Target::Attempts, SHOW),
        hook("{key}/dead", Target::Dead, DROP),
        hook("{key}/dead/replay", Target::Replay, ACT),
        hook("{key}/dead/{delivery}", Target::Dead, DROP),
    ]
}

/// What users and roles have beyond other entities.
fn of_users() -> Vec<Route> {
    let own = |pattern: &str, target, access, methods| Route {
        pattern: pattern.to_owned(),
        target,
        scope: None,
        access,
        methods,
        kind: Schema::admins().kind,
    };
    let of = |schema: &'static Schema, rest: &str, target, methods| Route {
        pattern: format!("/{}/{{key}}/{rest}", schema.path),
        target,
        scope: Some(schema.scope),
        access: Access::Roles,
        methods,
        kind: schema.kind,
    };
    let (admins, users, roles) = (Schema::admins(), Schema::rbac_users(), Schema::rbac_roles());
    let mut routes = vec![
        own(
            "/admins/register",
            Target::Register,
            Access::Open,
            "OPTIONS, POST, PUT",
        ),
        own(
            "/admins/self/token",
            Target::OwnToken,
            Access::Users,
            "OPTIONS, PATCH",
        ),
        own("/userinfo", Target::UserInfo, Access::Users, SHOW),
        of(roles, "permissions", Target::RolePermissions, SHOW),
        of(
            roles,
            "endpoints/{workspace}/{*endpoint}",
            Target::RoleEndpoint,
            "DELETE, GET, HEAD, OPTIONS, PATCH",
        ),
    ];
    for schema in [admins, users] {
        let methods = "DELETE, GET, HEAD, OPTIONS, POST";
        routes.push(of(schema, "roles", Target::UserRoles(schema), methods));
        routes.push(of(
            schema,
            "permissions",
            Target::UserPermissions(schema),
            SHOW,
        ));
        routes.push(of(
            schema,
            "workspaces",
            Target::UserWorkspaces(schema),
            SHOW,
        ));
    }
    routes
}

/// What groups, upstreams, partials and workspaces have beyond other entities.
fn of_groups_and_upstreams() -> Vec<Route> {
    let of = |schema: &'static Schema, rest: &str, target, methods| Route {
        pattern: format!("/{}/{{key}}/{rest}", schema.path),
        target,
        scope: Some(schema.scope),
        access: Access::Roles,
        methods,
        kind: schema.kind,
    };
    let (groups, consumers) = (Schema::consumer_groups(), Schema::consumers());
    let mut routes = vec![of(Schema::upstreams(), "health", Target::Health, SHOW)];
    for (schema, listed) in [(groups, consumers), (consumers, groups)] {
        let (all, one) = (
            listed.path.to_owned(),
            format!("{}/{{member}}", listed.path),
        );
        let methods = "DELETE, GET, HEAD, OPTIONS, POST";
        routes.push(of(schema, &all, Target::Members(schema), methods));
        routes.push(of(schema, &one, Target::Member(schema), SHOW_OR_DROP));
    }
    let rates = "overrides/plugins/rate-limiting-advanced";
    let methods = "DELETE, OPTIONS, PUT";
    routes.push(of(groups, rates, Target::GroupRates, methods));
    // Before the target that could be named so.
    let targets = Schema::targets();
    let all = Target::Children(Link {
        parent: Schema::upstreams(),
        child: targets,
        field: "upstream",
    });
    routes.push(of(Schema::upstreams(), "targets/all", all, SHOW));
    for mark in ["healthy", "unhealthy"] {
        let (one, address) = (
            format!("targets/{{target}}/{mark}"),
            format!("targets/{{target}}/{{address}}/{mark}"),
        );
        let upstreams = Schema::upstreams();
        routes.push(of(upstreams, &one, Target::MarkHealth(mark), MARK));
        routes.push(of(upstreams, &address, Target::MarkAddress(mark), MARK));
    }
    routes.push(of(Schema::partials(), "links", Target::PartialLinks, SHOW));
    routes.push(of(
        Schema::workspaces(),
        "meta",
        Target::WorkspaceMeta,
        SHOW,
    ));
    routes
}

fn of_kind(schema: &'static Schema) -> Vec<Route> {
    let path = schema.path;
    let access = if schema.kind == Schema::workspaces().kind {
        Access::Visible
    } else {
        Access::Roles
    };
    let route = |pattern: String, target, methods, kind| Route {
        pattern,
        target,
        scope: Some(schema.scope),
        access,
        methods,
        kind,
    };
    let mut routes = Vec::new();
    let has_parents = schema.is_top_level || schema.kind == Schema::targets().kind;
    for reference in schema.references().filter(|_| has_parents) {
        let Some(parent) = Schema::by_kind(reference.kind) else {
            continue;
        };
        let target = Target::Parent(Link {
            child: schema,
            parent,
            field: reference.field,
        });
        let pattern = format!("/{path}/{{key}}/{}", reference.field);
        routes.push(route(pattern, target, ITEM, parent.kind));
    }
    if schema.is_top_level {
        let (all, one) = (format!("/{path}"), format!("/{path}/{{key}}"));
        routes.push(route(all, Target::Collection(schema), LIST, schema.kind));
        routes.push(route(one, Target::Item(schema), ITEM, schema.kind));
    }
    for (child, field) in schema.referenced_by().filter(|(child, _)| !child.is_link) {
        let target = Target::Children(Link {
            parent: schema,
            child,
            field,
        });
        let pattern = format!("/{path}/{{key}}/{}", child.path_within());
        let item = format!("{pattern}/{{child}}");
        routes.push(route(pattern, target, LIST, child.kind));
        if child.kind != Schema::rbac_role_endpoints().kind {
            let target = Target::Child(Link {
                parent: schema,
                child,
                field,
            });
            routes.push(route(item, target, ITEM, child.kind));
        }
    }
    routes
}
