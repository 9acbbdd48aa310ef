//! The time of day.

use std::time::{SystemTime, UNIX_EPOCH};

#[must_use]
pub fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}
