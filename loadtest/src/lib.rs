//! Every claim about Hookline's speed and about what it survives, repeatable.
//!
//! * [`throughput`], against [`limit`], the bare pipe, with a [`receiver`] that costs little;
//! * [`chaos`]: faults on real processes under load, and a ledger of every delivery.

pub mod chaos;
pub mod limit;
pub mod receiver;
pub mod throughput;
