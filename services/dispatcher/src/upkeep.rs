//! Background work on the streams, and the watchdog over this worker.

pub mod event_purge;
pub mod outbox_purge;
pub mod overdue_sweeper;
pub mod watchdog;
