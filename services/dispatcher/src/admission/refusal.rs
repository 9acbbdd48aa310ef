//! Reasons to refuse a delivery.

use std::time::Duration;

/// How long a delivery waits while another probes the circuit.
pub(crate) const PROBING: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The circuit is open for that long, or another delivery probes it.
    Open(Duration),
    /// The rate limit is used up: the time until the delivery's place.
    Limited(Duration, Place),
    /// A delivery that could suppress this one is in flight: the time until the next try.
    Behind(Duration),
    /// `snooze`: a similar event was delivered recently.
    Snoozed,
    /// `on_change`: nothing that the hook watches has changed.
    Unchanged,
}

/// A place in a rate limit, in Unix milliseconds by Redis' clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u64);
