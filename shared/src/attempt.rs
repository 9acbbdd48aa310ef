//! An attempt, as the delivery log keeps it and the Admin API shows it. A message of the log has one in
//! each line, those of one hook that began in the same hour, oldest first.

use serde::Serialize;

/// What came of one attempt. Neither bodies nor headers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Attempt<'a> {
    /// The delivery's id.
    pub id: &'a str,
    /// The event's id.
    pub event_id: &'a str,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// When it began, in Unix seconds.
    pub attempted_at: f64,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// Why the attempt failed; nothing if it succeeded.
    pub error: Option<&'a str>,
    /// The dispatcher that made it.
    pub node: &'a str,
}
