//! Whether a hook may be called now.

pub mod backlog_limit;
pub mod bulkhead;
pub mod circuit_breaker;
pub mod rate_limit;
pub mod suppression;
