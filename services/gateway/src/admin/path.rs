//! Parses paths: an optional workspace, then what the table of routes has.

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use hookline_shared::hook::REDACTED;
use hookline_shared::subject::{ALL_WORKSPACES, DEFAULT_WORKSPACE};

use super::routes::Route;
use crate::access::MAX_SEGMENTS;
use crate::schema::{Scope, is_uuid};

#[derive(Debug)]
pub(super) struct Path {
    pub(super) workspace: Option<String>,
    pub(super) route: &'static Route,
    /// All of them, without the workspace.
    pub(super) segments: Arc<[String]>,
    /// What stands at the open places of the route's pattern.
    keys: Vec<String>,
}

impl Path {
    /// `None` if there is nothing at this path.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = Vec::new();
        for segment in path.split('/').filter(|_| !path.is_empty()) {
            let segment = percent_decode_str(segment).decode_utf8().ok()?;
            if segment.is_empty() || segments.len() == MAX_SEGMENTS {
                return None;
            }
            segments.push(segment.into_owned());
        }
        if let Some((route, keys)) = find(&segments) {
            return Some(Self {
                workspace: None,
                route,
                segments: segments.into(),
                keys,
            });
        }
        if segments.is_empty() {
            return None;
        }
        let workspace = segments.remove(0);
        let (route, keys) = find(&segments)?;
        route.scope?;
        Some(Self {
            workspace: Some(workspace),
            route,
            segments: segments.into(),
            keys,
        })
    }

    /// The workspace of what it leads to; `*` for all of them, and for what is in none.
    pub(super) fn place(&self) -> &str {
        match (self.route.scope, &self.workspace) {
            (None | Some(Scope::Global), _) | (Some(Scope::WorkspaceOrAll), None) => ALL_WORKSPACES,
            (Some(_), Some(workspace)) => workspace,
            (Some(_), None) => DEFAULT_WORKSPACE,
        }
    }

    /// As it was asked for, but for a key that lets somebody in: some entities are named by one.
    pub(super) fn without_secrets(&self, asked: &str) -> String {
        let secret = self.route.target.named_by_secret();
        let key = secret.and_then(|at| self.keys.get(at));
        let Some(key) = key.filter(|key| !is_uuid(key)) else {
            return asked.to_owned();
        };
        let segments = asked.split('/').map(|segment| {
            let text = percent_decode_str(segment).decode_utf8_lossy();
            if text == key.as_str() {
                REDACTED
            } else {
                segment
            }
        });
        segments.collect::<Vec<_>>().join("/")
    }

    /// Which segment names an entity.
    pub(super) fn key_place(&self) -> Option<usize> {
        let mut pattern = self
            .route
            .pattern
            .split('/')
            .filter(|part| !part.is_empty());
        pattern.position(|part| part.starts_with('{'))
    }

    /// The text at an open place of the pattern, if it has so many.
    pub(super) fn open(&self, place: usize) -> Option<&str> {
        self.keys.get(place).map(String::as_str)
    }

    /// The text at the first open place.
    pub(super) fn key(&self) -> &str {
        self.open(0).unwrap_or_default()
    }
}

fn find(segments: &[String]) -> Option<(&'static Route, Vec<String>)> {
    let mut routes = Route::all().iter();
    routes.find_map(|route| Some((route, route.keys(segments)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(Option<String>, String, Vec<String>)> {
        let path = Path::parse(path)?;
        Some((path.workspace, path.route.pattern.clone(), path.keys))
    }

    #[test]
    fn paths_name_kinds_entities_and_actions() {
        let hook_path = "/event-hooks/{key}/dead/{delivery}";
        for (path, workspace, pattern, keys) in [
            ("/", None, "/", &[][..]),
            ("/status", None, "/status", &[]),
            ("/consumers", None, "/consumers", &[]),
            ("/consumers/", None, "/consumers", &[]),
            ("/event-hooks/1", None, "/event-hooks/{key}", &["1"]),
            ("/event-hooks/sources/", None, "/event-hooks/sources", &[]),
            (
                "/team/event-hooks/sources/dao:crud",
                Some("team"),
                "/event-hooks/sources/{source}",
                &["dao:crud"],
            ),
            (
                "/event-hooks/sources/crud/consumers:update",
                None,
                "/event-hooks/sources/{source}/{event}",
                &["crud", "consumers:update"],
            ),
            (
                "/team/event-hooks/1/test/",
                Some("team"),
                "/event-hooks/{key}/test",
                &["1"],
            ),
            (
                "/event-hooks/1/dead/replay",
                None,
                "/event-hooks/{key}/dead/replay",
                &["1"],
            ),
            (
                "/team/event-hooks/1/dead/2",
                Some("team"),
                hook_path,
                &["1", "2"],
            ),
            ("/dead-events", None, "/dead-events", &[]),
            (
                "/team/consumers/Ada%20L%2Fovelace",
                Some("team"),
                "/consumers/{key}",
                &["Ada L/ovelace"],
            ),
            ("/services/s/routes", None, "/services/{key}/routes", &["s"]),
        ] {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            let want = (workspace.map(str::to_owned), pattern.to_owned(), keys);
            assert_eq!(parse(path), Some(want), "{path}");
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
            "/team/status",
            "/team/dead-events",
            "/team/event-hooks/1/dead/2/3",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
