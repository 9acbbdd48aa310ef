//! Names on the wire, as the documentation gives them to users.

/// Events that are not dealt with yet.
pub const EVENTS: &str = "HOOKLINE_EVENTS";
/// Parked deliveries.
pub const DELIVERIES: &str = "HOOKLINE_DELIVERIES";
/// Deliveries and events given up on.
pub const DEAD: &str = "HOOKLINE_DEAD";
/// What came of each attempt.
pub const ATTEMPTS: &str = "HOOKLINE_ATTEMPTS";
/// The bucket of entities, behind its stream.
pub const BUCKET: &str = "KV_hookline";
/// The consumer of events that dispatchers share.
pub const DISPATCHERS: &str = "dispatchers";
/// The header of a dead letter that says why it is one.
pub const REASON: &str = "Hookline-Reason";

/// The subject of an event in the default workspace. Tokens must be plain.
#[must_use]
pub fn event(source: &str, event: &str) -> String {
    event_in("default", source, event)
}

/// The subject of an event in a workspace. Tokens must be plain.
#[must_use]
pub fn event_in(workspace: &str, source: &str, event: &str) -> String {
    format!("hookline.events.{workspace}.{source}.{event}")
}
