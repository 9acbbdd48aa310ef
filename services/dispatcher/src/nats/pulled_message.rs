//! A pulled message and everything held for it.

use async_nats::Message;
use hookline_shared::pull::Place;
use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::ack_keepalive::Guard;

/// Until this is dropped, the message is kept alive and holds a permit of its lane.
#[derive(Debug)]
pub(crate) struct PulledMessage {
    pub(crate) message: Message,
    /// None: the message is not from a consumer.
    pub(crate) place: Option<Place>,
    _held: Held,
    _tracked: Option<TaskTrackerToken>,
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) _alive: Guard,
    pub(crate) _permit: OwnedSemaphorePermit,
    pub(crate) _weight: Option<OwnedSemaphorePermit>,
    pub(crate) _counted: Counted,
}

impl PulledMessage {
    pub(crate) fn new(message: Message, held: Held) -> Self {
        Self {
            place: Place::of(&message),
            message,
            _held: held,
            _tracked: None,
        }
    }

    /// Holds the token of a tracker, which waits for it.
    pub(crate) fn track(&mut self, token: TaskTrackerToken) {
        self._tracked = Some(token);
    }
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
