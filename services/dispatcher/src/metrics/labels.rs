//! The values of labels. They read as the variants are named.

use strum::{IntoStaticStr, VariantArray};

#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum EventOutcome {
    Matched,
    Unmatched,
    /// The message is no event.
    Malformed,
}

/// The end of a delivery, as far as this worker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Outcome {
    Delivered,
    /// Dead-lettered.
    Dead,
    /// Delivered, parked or buried before.
    Duplicate,
    /// Suppressed by `snooze`.
    Snoozed,
    /// Suppressed by `on_change`.
    Unchanged,
    /// Its hook is deleted.
    Orphaned,
}

/// Why a delivery is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Parked {
    /// The attempt failed, and there is another.
    Retry,
    CircuitOpen,
    RateLimit,
    Paused,
    /// The hook has as many attempts in flight as it may.
    NoPermit,
    /// The hook's handler cannot be prepared.
    Unusable,
    /// Another delivery, which waits for its retry, may suppress it.
    Behind,
    /// It is dead, and there is no room for dead letters.
    DeadLettersFull,
}

/// Why a message is redelivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Handback {
    /// Another worker has the delivery.
    Busy,
    /// This worker's claim was taken over.
    TakenOver,
    /// The hook has no permit, and soon will.
    NoPermit,
    /// Another worker probes the hook's circuit.
    Probing,
    /// Another delivery, in flight, may suppress it.
    Behind,
    RedisAway,
    /// It could not be parked, buried or stored for any worker.
    Unwritable,
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum AttemptResult {
    Success,
    #[strum(serialize = "http_3xx")]
    Http3xx,
    #[strum(serialize = "http_4xx")]
    Http4xx,
    #[strum(serialize = "http_5xx")]
    Http5xx,
    Timeout,
    Connect,
    Tls,
    Dns,
    /// The proxy is away, or lets this dispatcher not in.
    Proxy,
    /// The answer broke off, or was not HTTP.
    Broken,
    /// Not made: the address is refused.
    Egress,
    /// The function failed, declined or did not come back.
    Script,
    /// Not made: the request could not be rendered.
    Template,
    /// A fault of the dispatcher.
    Internal,
}

/// Why a delivery is dead, or what a dead message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Death {
    /// Its retries are used up.
    Exhausted,
    /// The receiver kept answering with 3xx or 4xx.
    Refused,
    /// The receiver answered 410.
    Gone,
    TooOld,
    Egress,
    /// Too many deliveries of its hook wait.
    Backlog,
    Script,
    Template,
    NotAnEvent,
    /// A stored delivery that cannot be read.
    Unreadable,
    /// It has stopped its workers.
    StopsWorkers,
    /// A fault of the dispatcher, again and again.
    Internal,
}

/// Of a delivery that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Attempt {
    /// The first, which never waited.
    First,
    Later,
}

/// Calls of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum RedisCall {
    Claim,
    Renew,
    Finish,
    /// Everything that no delivery waits for.
    Other,
}

/// A stream of work with permits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum LaneName {
    Events,
    Retries,
}
