//! An entry of the delivery log, as the Admin API shows it. A message of the log holds attempts of one hook
//! that began in the same hour, one per line, oldest first.

use serde::Serialize;

/// Holds neither bodies nor headers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Attempt<'a> {
    /// Id of the delivery.
    pub id: &'a str,
    pub event_id: &'a str,
    /// From 1.
    pub attempt: u32,
    /// Start in Unix seconds.
    pub attempted_at: f64,
    pub duration_ms: f64,
    /// HTTP status of the receiver's response, if there was one.
    pub status: Option<u16>,
    /// `None` if the attempt succeeded, or was not made.
    pub error: Option<&'a str>,
    /// `snooze` or `on_change`, if the attempt was not made because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<&'a str>,
    /// The trace it belongs to, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    /// Name of the dispatcher.
    pub node: &'a str,
}
