//! Additions to the NATS client.

pub(crate) mod ack_keepalive;
pub(crate) mod pulled_message;
pub(crate) mod request;
