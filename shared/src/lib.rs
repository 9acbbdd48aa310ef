//! Everything that gateway and dispatcher must agree on.
//!
//! * [`event`], [`hook`]: the wire contract, and subscriptions with their handlers' config;
//! * [`attempt`]: an entry of the delivery log;
//! * [`subject`]: every stream, subject, key and header name;
//! * [`connection`]: connects to NATS, and says what it forbids;
//! * [`streams`]: creates or checks streams and consumers;
//! * [`watch`]: follows keys of the bucket;
//! * [`batch`]: group commit by atomic batches;
//! * [`pull`]: pulls messages of a consumer;
//! * [`parking`]: limits on parked deliveries;
//! * [`retry`], [`signature`]: pure functions;
//! * [`template`], [`lua`], [`known_stack`]: user code, compiled by both services;
//! * [`http_server`], [`same_site`]: what the Admin and status ports let through;
//! * [`unreadable`]: stored messages at which the NATS client breaks;
//! * [`stream_reader`]: reads a stream by subject;
//! * [`metrics`], [`service_metrics`], [`queues`]: how metrics are registered, and those that both services have;
//! * [`registry`]: built-in event metadata;
//! * [`rpc`], [`workers`]: requests from gateways to dispatchers, and signs of life;
//! * [`supervisor`], [`status`], [`shutdown`], [`settings`], [`telemetry`], [`files`], [`clock`]: the shape of a
//!   service process.

pub mod attempt;
pub mod batch;
pub mod clock;
pub mod connection;
pub mod egress;
pub mod event;
pub mod files;
pub mod hook;
pub mod http_server;
pub mod json_text;
pub mod known_stack;
pub mod lua;
pub mod metrics;
pub mod nearest;
pub mod parking;
pub mod pull;
pub mod queues;
pub mod registry;
pub mod retry;
pub mod rpc;
pub mod same_site;
pub mod service_metrics;
pub mod settings;
pub mod shutdown;
pub mod signature;
pub mod status;
mod stream_api;
pub mod stream_reader;
pub mod streams;
pub mod subject;
pub mod supervisor;
pub mod telemetry;
pub mod template;
pub mod unreadable;
pub mod watch;
pub mod workers;
