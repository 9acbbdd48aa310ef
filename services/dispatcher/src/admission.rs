//! Whether a hook may be called now.

pub(crate) mod backlog_limit;
pub(crate) mod bulkhead;
pub(crate) mod circuit_breaker;
pub(crate) mod rate_limit;
pub(crate) mod suppression;
