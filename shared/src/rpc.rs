//! What a gateway asks a dispatcher over NATS request-reply: `ping` and `test`.
//!
//! A gateway never calls a hook's endpoint; egress leaves from dispatchers only, so what a test
//! shows is what production does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::subject::rpc_subject as subject;

/// Verb: send the hook's ping now.
pub const PING: &str = "ping";
/// Verb: make one attempt with data that the caller gives.
pub const TEST: &str = "test";
/// How long a gateway waits: longer than any attempt may take.
pub const TIMEOUT: Duration = Duration::from_secs(65);

/// A question about one hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The hook's id.
    pub hook: String,
    /// The event's data; only with [`TEST`].
    #[serde(default)]
    pub data: Map<String, Value>,
}

/// What the gateway passes on to its client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// JSON body.
    pub body: Value,
}
