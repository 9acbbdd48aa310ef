//! The Redis client: where Redis is, whether it answers, and calls of scripts.

pub mod client;
pub mod script_call;
pub mod url;
