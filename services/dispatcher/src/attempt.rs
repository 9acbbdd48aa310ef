//! Makes attempts, retries them in-process where that pays off, and logs them.

pub mod deliver;
pub mod delivery_log;
pub mod inline_retry;
pub mod ping_and_test;
