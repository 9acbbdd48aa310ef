//! Where an upstream's requests go: addresses, or names, with a port and a weight.

use serde_json::Value;

use super::field::{Default, Field};
use super::rules;
use super::table::{Entity, Schema};
use super::violations::Violations;

/// What was last said of it: `healthy` or `unhealthy`.
pub(crate) const HEALTH: &str = "health";
const DEFAULT_PORT: u16 = 8_000;

pub(super) static TABLE: Schema = Schema {
    kind: "targets",
    path: "targets",
    is_top_level: false,
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("target").required().rule(target),
        Field::integer("weight")
            .default(Default::Integer(100))
            .between(0, 65_535),
        Field::tags(),
        Field::foreign("upstream", "upstreams").required().cascade(),
        Field::string(HEALTH).internal(),
    ],
    unique_together: &["upstream", "target"],
    shorthand: Some(add_port),
    ..Schema::PLAIN
};

fn target(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let (host, _) = parse(text)
        .ok_or_else(|| format!("Invalid target ('{text}'); not a valid hostname or ip address"))?;
    rules::host(&host.into()).map_err(|_| "invalid value".to_owned())
}

/// Host and port, if there is one.
fn parse(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if rest.is_empty() => None,
            None => return None,
        };
        return Some((host, port));
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((text, None)),
    }
}

/// Host and port of a stored target.
pub(crate) fn split(target: &str) -> Option<(&str, u16)> {
    let (host, port) = parse(target)?;
    Some((host, port?))
}

/// A target has a port.
fn add_port(values: &mut Entity, _: &mut Violations) {
    let Some(Value::String(target)) = values.get_mut("target") else {
        return;
    };
    if let Some((host, None)) = parse(target) {
        *target = if host.contains(':') {
            format!("[{host}]:{DEFAULT_PORT}")
        } else {
            format!("{host}:{DEFAULT_PORT}")
        };
    }
}
