//! The Redis client: where Redis is, whether it answers, and calls of scripts.

pub(crate) mod client;
pub(crate) mod script_call;
pub(crate) mod url;
