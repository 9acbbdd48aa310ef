//! What gateway and dispatcher must agree on.
//!
//! * [`event`] and [`hook`]: the two things everything is about;
//! * [`attempt`]: an entry of the delivery log;
//! * [`subject`]: every stream, subject, key and header name;
//! * [`streams`]: connecting, and creating or checking streams and consumers;
//! * [`watch`]: following keys of the bucket;
//! * [`batch`]: group commit by atomic batches;
//! * [`pull`]: pulling the messages of a consumer;
//! * [`retry`], [`signature`]: pure functions;
//! * [`template`], [`lua`]: user code, compiled by both services;
//! * [`stream_reader`]: reading a stream by subject;
//! * [`registry`]: what is known of sources and events beforehand;
//! * [`rpc`]: what a gateway asks a dispatcher;
//! * [`settings`], [`telemetry`], [`status`], [`shutdown`], [`files`]: the shape of a service process.

pub mod attempt;
pub mod batch;
pub mod clock;
pub mod event;
pub mod files;
pub mod hook;
pub mod lua;
pub mod parking;
pub mod pull;
pub mod registry;
pub mod retry;
pub mod rpc;
pub mod settings;
pub mod shutdown;
pub mod signature;
pub mod status;
pub mod stream_reader;
pub mod streams;
pub mod subject;
pub mod supervisor;
pub mod telemetry;
pub mod template;
pub mod watch;
