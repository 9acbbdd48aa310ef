//! The harness of the end-to-end tests: real servers, real processes, no mocks.
//!
//! A scenario starts a [`Cluster`] (NATS, Redis, gateways, dispatchers and a receiver, all on free ports
//! of 127.0.0.1), does what a user does, and ends with [`Cluster::finish`], which fails if messages are
//! left over or a service does not exit cleanly. A cluster that is dropped earlier prints the tail of
//! every log: the scenario has failed.
//!
//! [`wire`] spells the names on the wire once more instead of taking them from the product: a change of
//! the contract must fail a test.

pub mod admin;
pub mod binaries;
pub mod cluster;
pub mod collector;
pub mod docs;
pub mod forward_proxy;
pub mod hostile;
pub mod logs;
pub mod metrics;
pub mod nats;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod python;
pub mod raw_nats;
pub mod rbac;
pub mod receiver;
pub mod redis;
pub mod secrets;
pub mod sender;
pub mod service;
pub mod tls;
pub mod wait;
pub mod wire;

pub use admin::{Admin, Answer};
pub use cluster::{Builder, Cluster, Leftovers};
pub use collector::Collector;
pub use forward_proxy::ForwardProxy;
pub use nats::{NatsServer, Store};
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use raw_nats::RawNats;
pub use receiver::{Receiver, Request};
pub use redis::{RedisCluster, RedisServer, Sentinel};
pub use secrets::Secrets;
pub use sender::Sender;
pub use service::Service;
pub use tls::{Authority, TlsFront, Validity};
pub use wait::eventually;

pub type Result<T = ()> = anyhow::Result<T>;

/// When a wait counts as hung. Not a bound on speed: tests may share the machine with a build.
pub const SOON: std::time::Duration = std::time::Duration::from_secs(60);
