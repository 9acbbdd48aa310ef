//! Every claim about Hookline's speed and about what it survives, repeatable.
//!
//! * [`mod@bench`] asks all questions about speed: [`limit`], the bare pipe that everything is divided by,
//!   [`throughput`], [`latency`], [`neighbours`], [`hooks`], [`fanout`], [`scaling`], [`publish`] and
//!   [`soak`], with a [`receiver`] that costs little;
//! * [`chaos`]: faults on real processes under load, and a ledger of every delivery.

pub mod bench;
pub mod chaos;
pub mod fanout;
pub mod hooks;
pub mod latency;
pub mod limit;
pub mod neighbours;
pub mod outcome;
pub mod plot;
pub mod publish;
pub mod question;
pub mod receiver;
pub mod report;
pub mod rig;
pub mod scaling;
pub mod soak;
pub mod throughput;
