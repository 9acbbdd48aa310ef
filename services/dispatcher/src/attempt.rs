//! Makes attempts, retries them in-process where that pays off, and logs them.

pub(crate) mod deliver;
pub(crate) mod delivery_log;
pub(crate) mod failure_log;
pub(crate) mod inline_retry;
pub(crate) mod ping_and_test;
mod trace;
