//! Pulls messages, matches hooks, and hands deliveries over.

pub mod consumer;
pub mod dispatch;
