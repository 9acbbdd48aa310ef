//! An attempt, as the delivery log keeps it and the Admin API shows it.

use serde::{Deserialize, Serialize};

/// What came of one attempt. Neither bodies nor headers are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The delivery's id.
    pub id: String,
    /// The event's id.
    pub event_id: String,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// When it began, in Unix seconds.
    pub attempted_at: f64,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// Why the attempt failed; nothing if it succeeded.
    pub error: Option<String>,
    /// The dispatcher that made it.
    pub node: String,
}

impl Attempt {
    /// The hour in which it began, since 1970.
    #[must_use]
    pub fn hour(&self) -> u64 {
        (self.attempted_at / 3_600.0) as u64
    }
}
