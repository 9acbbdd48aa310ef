//! Parses paths: an optional workspace, then an entity kind, an entity or an action. The kinds and
//! their children follow from the schema.

use percent_encoding::percent_decode_str;

use crate::schema::Schema;

#[derive(Debug)]
pub(super) struct Path {
    pub(super) workspace: Option<String>,
    pub(super) target: Target,
}

#[derive(Debug)]
pub(super) enum Target {
    /// `/`
    Node,
    /// `/status`
    Status,
    /// `/{kind}`
    Collection(&'static Schema),
    /// `/{kind}/{key}`, by id or endpoint key.
    Item(&'static Schema, String),
    /// `/{kind}/{key}/{child kind}`: entities that refer to one.
    Children {
        parent: &'static Schema,
        key: String,
        child: &'static Schema,
        field: &'static str,
    },
    /// `/event-hooks/sources`, `/event-hooks/sources/{source}` or `/event-hooks/sources/{source}/{event}`.
    Sources(Option<String>, Option<String>),
    /// `/event-hooks/{id}/ping`.
    Ping(String),
    /// `/event-hooks/{id}/test`.
    Test(String),
    /// `/event-hooks/{id}/status`.
    HookStatus(String),
    /// `/event-hooks/{id}/deliveries`.
    Deliveries(String),
    /// `/event-hooks/{id}/deliveries/retry`.
    RetryNow(String),
    /// `/event-hooks/{id}/attempts`.
    Attempts(String),
    /// `/event-hooks/{id}/dead/replay`.
    Replay(String),
    /// `/event-hooks/{id}/dead`, or `/event-hooks/{id}/dead/{delivery}`.
    Dead(String, Option<String>),
    /// `/dead-events`, or `/dead-events/{id}`.
    DeadEvents(Option<String>),
    /// `/dead-events/{id}/publish`.
    PublishDeadEvent(String),
}

impl Path {
    /// `None` if there is nothing at this path.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut parts = Vec::new();
        for part in path.split('/').filter(|_| !path.is_empty()) {
            let part = percent_decode_str(part).decode_utf8().ok()?;
            if part.is_empty() || parts.len() > 4 {
                return None;
            }
            parts.push(part.into_owned());
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [] => Some(Self {
                workspace: None,
                target: Target::Node,
            }),
            ["status"] => Some(Self {
                workspace: None,
                target: Target::Status,
            }),
            ["dead-events"] => Some(Self {
                workspace: None,
                target: Target::DeadEvents(None),
            }),
            ["dead-events", id] => Some(Self {
                workspace: None,
                target: Target::DeadEvents(Some((*id).to_owned())),
            }),
            ["dead-events", id, "publish"] => Some(Self {
                workspace: None,
                target: Target::PublishDeadEvent((*id).to_owned()),
            }),
            [first, ..] if Schema::by_path(first).is_some() => Some(Self {
                workspace: None,
                target: Target::parse(&parts)?,
            }),
            [workspace, rest @ ..] => Some(Self {
                target: Target::parse(rest)?,
                workspace: Some((*workspace).to_owned()),
            }),
        }
    }

    /// The path's form, without keys.
    pub(super) fn route(&self) -> String {
        let of_hook = |action: &str| format!("/event-hooks/{{key}}{action}");
        match &self.target {
            Target::Node => "/".to_owned(),
            Target::Status => "/status".to_owned(),
            Target::Collection(schema) => format!("/{}", schema.path),
            Target::Item(schema, _) => format!("/{}/{{key}}", schema.path),
            Target::Children { parent, child, .. } => {
                format!("/{}/{{key}}/{}", parent.path, child.path)
            }
            Target::Sources(..) => "/event-hooks/sources".to_owned(),
            Target::Ping(_) => of_hook("/ping"),
            Target::Test(_) => of_hook("/test"),
            Target::HookStatus(_) => of_hook("/status"),
            Target::Deliveries(_) => of_hook("/deliveries"),
            Target::RetryNow(_) => of_hook("/deliveries/retry"),
            Target::Attempts(_) => of_hook("/attempts"),
            Target::Replay(_) => of_hook("/dead/replay"),
            Target::Dead(..) => of_hook("/dead"),
            Target::DeadEvents(_) => "/dead-events".to_owned(),
            Target::PublishDeadEvent(_) => "/dead-events/{id}/publish".to_owned(),
        }
    }

    /// The entity kind, as a metric label.
    pub(super) fn kind(&self) -> &'static str {
        match &self.target {
            Target::Node | Target::Status => "node",
            Target::Collection(schema) | Target::Item(schema, _) => schema.kind,
            Target::Children { child, .. } => child.kind,
            Target::Sources(..)
            | Target::Ping(_)
            | Target::Test(_)
            | Target::HookStatus(_)
            | Target::Deliveries(_)
            | Target::RetryNow(_)
            | Target::Attempts(_)
            | Target::Replay(_)
            | Target::Dead(..)
            | Target::DeadEvents(_)
            | Target::PublishDeadEvent(_) => hookline_shared::subject::HOOK_KIND,
        }
    }
}

impl Target {
    fn parse(parts: &[&str]) -> Option<Self> {
        let (first, rest) = parts.split_first()?;
        let schema = Schema::by_path(first)?;
        let is_hooks = schema.kind == hookline_shared::subject::HOOK_KIND;
        match *rest {
            [] => Some(Self::Collection(schema)),
            ["sources"] if is_hooks => Some(Self::Sources(None, None)),
            ["sources", source] if is_hooks => Some(Self::Sources(Some(source.to_owned()), None)),
            ["sources", source, event] if is_hooks => Some(Self::Sources(
                Some(source.to_owned()),
                Some(event.to_owned()),
            )),
            [key] => Some(Self::Item(schema, key.to_owned())),
            [key, "ping"] if is_hooks => Some(Self::Ping(key.to_owned())),
            [key, "test"] if is_hooks => Some(Self::Test(key.to_owned())),
            [key, "status"] if is_hooks => Some(Self::HookStatus(key.to_owned())),
            [key, "deliveries"] if is_hooks => Some(Self::Deliveries(key.to_owned())),
            [key, "deliveries", "retry"] if is_hooks => Some(Self::RetryNow(key.to_owned())),
            [key, "attempts"] if is_hooks => Some(Self::Attempts(key.to_owned())),
            [key, "dead"] if is_hooks => Some(Self::Dead(key.to_owned(), None)),
            [key, "dead", "replay"] if is_hooks => Some(Self::Replay(key.to_owned())),
            [key, "dead", delivery] if is_hooks => {
                Some(Self::Dead(key.to_owned(), Some(delivery.to_owned())))
            }
            [key, child] => {
                let (child, field) = schema
                    .referenced_by()
                    .find(|(schema, _)| schema.path == child)?;
                Some(Self::Children {
                    parent: schema,
                    key: key.to_owned(),
                    child,
                    field,
                })
            }
            _ => None,
        }
    }

    pub(super) fn allows(&self, method: &str) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method)
    }

    /// The allowed methods, as in the `Allow` header.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Node
            | Self::Status
            | Self::Sources(..)
            | Self::HookStatus(_)
            | Self::Ping(_)
            | Self::Deliveries(_)
            | Self::Attempts(_) => "GET, HEAD, OPTIONS",
            Self::Collection(_) | Self::Children { .. } => "GET, HEAD, OPTIONS, POST",
            Self::Item(..) => "DELETE, GET, HEAD, OPTIONS, PATCH, PUT",
            Self::Test(_) | Self::Replay(_) | Self::RetryNow(_) | Self::PublishDeadEvent(_) => {
                "OPTIONS, POST"
            }
            Self::Dead(..) => "DELETE, OPTIONS",
            Self::DeadEvents(_) => "DELETE, GET, HEAD, OPTIONS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<String> {
        let Path { workspace, target } = Path::parse(path)?;
        let target = match target {
            Target::Node => "node".to_owned(),
            Target::Status => "status".to_owned(),
            Target::Collection(schema) => format!("all {}", schema.kind),
            Target::Item(schema, key) => format!("{} {key}", schema.kind),
            Target::Children {
                parent,
                key,
                child,
                field,
            } => {
                format!("{} of {} {key} by {field}", child.kind, parent.kind)
            }
            Target::Sources(source, event) => format!("sources {source:?} {event:?}"),
            Target::Ping(key) => format!("ping {key}"),
            Target::Test(key) => format!("test {key}"),
            Target::HookStatus(key) => format!("status {key}"),
            Target::Deliveries(key) => format!("deliveries {key}"),
            Target::RetryNow(key) => format!("retry {key}"),
            Target::Attempts(key) => format!("attempts {key}"),
            Target::Replay(key) => format!("replay {key}"),
            Target::Dead(key, delivery) => format!("dead {key} {delivery:?}"),
            Target::DeadEvents(id) => format!("dead events {id:?}"),
            Target::PublishDeadEvent(id) => format!("publish dead event {id}"),
        };
        Some(workspace.map_or(target.clone(), |name| format!("{name}: {target}")))
    }

    #[test]
    fn paths_name_kinds_entities_and_actions() {
        for (path, target) in [
            ("/", "node"),
            ("/status", "status"),
            ("/consumers", "all consumers"),
            ("/consumers/", "all consumers"),
            ("/event-hooks/1", "event_hooks 1"),
            ("/event-hooks/sources/", "sources None None"),
            (
                "/team/event-hooks/sources/dao:crud",
                "team: sources Some(\"dao:crud\") None",
            ),
            (
                "/event-hooks/sources/crud/consumers:update",
                "sources Some(\"crud\") Some(\"consumers:update\")",
            ),
            ("/event-hooks/1/ping", "ping 1"),
            ("/team/event-hooks/1/test/", "team: test 1"),
            ("/event-hooks/1/deliveries", "deliveries 1"),
            ("/event-hooks/1/dead/replay", "replay 1"),
            ("/event-hooks/1/deliveries/retry", "retry 1"),
            ("/event-hooks/1/dead", "dead 1 None"),
            ("/team/event-hooks/1/dead/2", "team: dead 1 Some(\"2\")"),
            ("/dead-events", "dead events None"),
            (
                "/team/consumers/Ada%20L%2Fovelace",
                "team: consumers Ada L/ovelace",
            ),
            ("/services/s/routes", "routes of services s by service"),
        ] {
            assert_eq!(parse(path).as_deref(), Some(target), "{path}");
        }
    }

    #[test]
    fn other_paths_are_not_found() {
        for path in [
            "",
            "/consumers//",
            "/team",
            "/team/nothing",
            "/consumers/a/ping",
            "/consumers/a/b",
            "/routes/r/services",
            "/team/team/consumers",
            "/consumers/%FF",
            "/event-hooks/1/ping/2",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
