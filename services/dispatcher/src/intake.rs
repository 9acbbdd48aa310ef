//! Pulls messages, matches hooks, and hands deliveries over.

mod batches;
pub(crate) mod consumer;
pub(crate) mod dispatch;
pub(crate) mod spread_limit;
pub(crate) mod suspects;
pub(crate) mod workspaces;
