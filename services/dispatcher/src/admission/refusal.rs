//! Why a hook may not be called now.

use std::time::Duration;

/// How long a delivery waits while another one probes the circuit.
pub(crate) const PROBING: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The circuit is open for that long.
    Open(Duration),
    /// The rate limit is used up: how long it is until the delivery's place.
    Limited(Duration, Place),
    /// `snooze`: an event about the same was delivered a short time ago.
    Snoozed,
    /// `on_change`: nothing that the hook watches has changed.
    Unchanged,
}

/// A place in a rate limit, in Unix milliseconds by Redis' clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u64);
