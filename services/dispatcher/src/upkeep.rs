//! Background work on the streams, and the watchdog over this worker.

pub(crate) mod bucket_purge;
pub(crate) mod event_purge;
pub(crate) mod outbox_purge;
pub(crate) mod overdue_sweeper;
pub(crate) mod watchdog;
