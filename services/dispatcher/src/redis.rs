//! The Redis client: URL, connection state, keys, script calls, and the workers that share a Redis.

pub(crate) mod client;
pub(crate) mod keys;
pub(crate) mod script_call;
pub(crate) mod url;
pub(crate) mod workers;
