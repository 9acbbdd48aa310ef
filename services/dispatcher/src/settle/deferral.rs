//! Reasons to park a delivery without an attempt.

use crate::admission::refusal::Place;
use crate::metrics::Parked;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deferral {
    Paused,
    /// The hook's handler cannot be prepared.
    Unusable,
    /// The hook's bulkhead has no permit in time.
    NoPermit,
    CircuitOpen,
    RateLimit(Place),
    /// Another delivery, which waits for its retry, may suppress it.
    Behind,
}

impl Deferral {
    pub(super) fn parked(self) -> Parked {
        match self {
            Self::Paused => Parked::Paused,
            Self::Unusable => Parked::Unusable,
            Self::NoPermit => Parked::NoPermit,
            Self::CircuitOpen => Parked::CircuitOpen,
            Self::RateLimit(_) => Parked::RateLimit,
            Self::Behind => Parked::Behind,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Paused => "the hook is paused",
            Self::Unusable => "the hook cannot be used as it is",
            Self::NoPermit => "the hook has as many attempts in flight as it may",
            Self::CircuitOpen => "the hook's circuit is open",
            Self::RateLimit(_) => "the hook's rate limit is used up",
            Self::Behind => "a delivery about the same waits for its retry",
        }
    }

    pub(super) fn place(self) -> Option<Place> {
        match self {
            Self::RateLimit(place) => Some(place),
            // A place expires: a delivery that waits for another reason takes a new one.
            Self::Paused | Self::Unusable | Self::NoPermit | Self::CircuitOpen | Self::Behind => {
                None
            }
        }
    }
}
