//! Reproducible measurements of Hookline's speed and fault tolerance.
//!
//! * [`mod@bench`] answers all questions about speed: [`limit`] (the bare pipe, the reference),
//!   [`throughput`], [`latency`], [`neighbours`], [`hooks`], [`fanout`], [`scaling`], [`publish`], [`ingest`], [`rbac`], [`entities`] and
//!   [`soak`], with a cheap [`receiver`];
//! * [`chaos`] injects faults into real processes under load and accounts for every delivery.

pub mod bench;
pub mod chaos;
pub mod entities;
pub mod fanout;
pub mod hooks;
pub mod ingest;
pub mod latency;
pub mod limit;
pub mod neighbours;
pub mod outcome;
pub mod plot;
pub mod publish;
pub mod question;
pub mod rbac;
pub mod receiver;
pub mod report;
pub mod rig;
pub mod scaling;
pub mod soak;
pub mod throughput;
