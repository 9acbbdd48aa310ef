//! What the dispatcher adds to the NATS client.

pub mod ack_keepalive;
pub mod request;
