//! Names on the wire, as documented.

pub const EVENTS: &str = "HOOKLINE_EVENTS";
pub const DELIVERIES: &str = "HOOKLINE_DELIVERIES";
pub const DEAD: &str = "HOOKLINE_DEAD";
pub const ATTEMPTS: &str = "HOOKLINE_ATTEMPTS";
/// The stream of the bucket.
pub const BUCKET: &str = "KV_hookline";
/// The consumer of [`EVENTS`] that dispatchers share.
pub const DISPATCHERS: &str = "dispatchers";
/// The header that says why a dead letter is dead.
pub const REASON: &str = "Hookline-Reason";

/// An event's subject in the default workspace. Nothing is encoded.
#[must_use]
pub fn event(source: &str, event: &str) -> String {
    event_in("default", source, event)
}

/// An event's subject. Nothing is encoded.
#[must_use]
pub fn event_in(workspace: &str, source: &str, event: &str) -> String {
    format!("hookline.events.{workspace}.{source}.{event}")
}
