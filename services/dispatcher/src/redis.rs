//! The Redis client: where Redis is, whether it answers, script calls, and the workers that share it.

pub(crate) mod client;
pub(crate) mod keys;
pub(crate) mod script_call;
pub(crate) mod url;
pub(crate) mod workers;
