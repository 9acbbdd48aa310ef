//! Requests to dispatchers over NATS: `ping` and `test` from gateways, `redis` from other dispatchers.
//!
//! Gateways never call a hook's endpoint. Only dispatchers do, so a test takes the same path as a delivery.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::subject::rpc_subject as subject;

/// Sends the hook's ping.
pub const PING: &str = "ping";
/// Makes one attempt with the data of the request.
pub const TEST: &str = "test";
/// The hook's state: see [`Status`].
pub const STATUS: &str = "status";
/// Whether the dispatcher's Redis has the sign that is the payload, a UUID. The answer's body is `{"seen": bool}`.
pub const REDIS: &str = "redis";
/// Longer than any attempt may take.
pub const TIMEOUT: Duration = Duration::from_secs(65);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Id of the hook.
    pub hook: String,
    /// The event's data, for [`TEST`].
    #[serde(default)]
    pub data: Map<String, Value>,
}

/// What dispatchers know of a hook, in a reply's body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// `closed`, `open` or `half-open`.
    pub circuit: String,
    /// When an open circuit lets an attempt probe, in Unix seconds.
    pub probed_at: Option<f64>,
    /// Why the hook cannot be used, if it cannot.
    pub unusable: bool,
}

/// The response; a gateway returns it to its client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
}
