//! Sweeps waiting deliveries: parks overdue ones again, and those due in an absurdly distant future, and purges those of deleted hooks.
//!
//! A schedule that falls due while the server's storage is exhausted stays stuck, even after there is storage again.
//! So all waiting deliveries are checked, a few at a time. Dispatchers take turns through Redis. Without Redis several
//! may sweep, which is harmless.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures::future::try_join_all;
use hookline_shared::clock;
use hookline_shared::stream_reader::{self, Stored};
use hookline_shared::subject::{self, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::hooks::Index;
use crate::metrics::Metrics;
use crate::redis::workers::Workers;
use crate::settle::Settle;

/// The longest turn, and the pause before asking for another.
const TURN: Duration = Duration::from_secs(10);
/// The pause after reading a few messages is this many times as long as the read. Deliveries would have to wait for a
/// longer read.
const COST: u32 = 20;
/// How late a delivery may be before it is parked again.
const OVERDUE: Duration = Duration::from_secs(30);
/// Overdue deliveries are spread over this time.
const SPREAD: Duration = Duration::from_secs(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Sweeper {
    pub context: jetstream::Context,
    pub settle: Arc<Settle>,
    pub index: Arc<Index>,
    pub workers: Workers,
    pub metrics: Metrics,
}

impl Sweeper {
    pub(crate) async fn run(self) {
        let mut from = 1;
        loop {
            tokio::time::sleep(TURN).await;
            while self.workers.turn("sweeper", TURN).await && self.turn(&mut from).await {}
        }
    }

    /// Sweeps for one turn. Returns whether there is more.
    async fn turn(&self, from: &mut u64) -> bool {
        let end = Instant::now() + TURN;
        while Instant::now() < end {
            match self.sweep_few(*from).await {
                Ok(Some((next, pause))) => {
                    *from = next;
                    tokio::time::sleep(pause).await;
                }
                Ok(None) => {
                    *from = 1;
                    return false;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot sweep the parked deliveries");
                    return false;
                }
            }
        }
        true
    }

    /// Sweeps a few. Returns where to go on and after which pause; None at the end. Reading a whole page of the stream
    /// would cost the server a walk through all of its subjects.
    async fn sweep_few(&self, from: u64) -> Result<Option<(u64, Duration)>, BoxError> {
        let (client, all) = (self.context.client(), subject::ALL_SUBJECTS);
        let began = Instant::now();
        let mut few = stream_reader::few(&client, subject::DELIVERIES_STREAM, all, from).await?;
        let pause = began.elapsed() * COST;
        let Some(next) = few.last().map(|last| last.sequence + 1) else {
            return Ok(None);
        };
        few.retain(|stored| subject::parse_wait_subject(&stored.subject).is_some());
        self.purge_deleted(&few).await?;
        self.purge_orphans(&few).await?;
        let stuck = few.iter().filter(|waiting| is_stuck(waiting));
        // Concurrently, so that they share commits.
        try_join_all(stuck.map(|waiting| self.park_again(waiting))).await?;
        Ok(Some((next, pause)))
    }

    /// Purges the waiting deliveries of deleted hooks.
    async fn purge_deleted(&self, waiting: &[Stored]) -> Result<(), BoxError> {
        let unknown = |index: &Index| -> HashSet<&str> {
            let snapshot = index.snapshot();
            waiting
                .iter()
                .filter_map(|waiting| subject::parse_wait_subject(&waiting.subject))
                .map(|(hook, _)| hook)
                .filter(|hook| !snapshot.knows(hook))
                .collect()
        };
        if unknown(&self.index).is_empty() {
            return Ok(());
        }
        // No hook that is created after this has deliveries among them.
        self.index.catch_up().await?;
        let deleted = unknown(&self.index);
        let stream = self.context.get_stream_no_info(subject::DELIVERIES_STREAM);
        let stream = stream.await?;
        for hook in deleted {
            let purged = stream.purge().filter(subject::waits_of(hook)).await?.purged;
            tracing::info!(hook, purged, "purged the deliveries of a deleted hook");
        }
        Ok(())
    }

    /// Purges the waiting deliveries of deleted hooks whose ids others have now.
    async fn purge_orphans(&self, waiting: &[Stored]) -> Result<(), BoxError> {
        let orphans = || {
            let snapshot = self.index.snapshot();
            let is_orphan = |waiting: &&Stored| {
                let (hook, _) = subject::parse_wait_subject(&waiting.subject)?;
                let incarnation = waiting.header(header::INCARNATION)?.parse().ok()?;
                Some(!snapshot.get(hook)?.owns(incarnation))
            };
            let orphans = waiting.iter();
            let orphans = orphans.filter(|one| is_orphan(one) == Some(true));
            orphans.collect::<Vec<_>>()
        };
        if orphans().is_empty() {
            return Ok(());
        }
        self.index.catch_up().await?;
        let stream = self.context.get_stream_no_info(subject::DELIVERIES_STREAM);
        let stream = stream.await?;
        for orphan in orphans() {
            let purge = stream.purge().filter(&orphan.subject);
            purge.sequence(orphan.sequence + 1).await?;
        }
        Ok(())
    }

    async fn park_again(&self, waiting: &Stored) -> Result<(), BoxError> {
        let spread = SPREAD.mul_f64((waiting.sequence % 100) as f64 / 100.0);
        if self.settle.park_again(waiting, spread).await? {
            self.metrics.swept();
        }
        Ok(())
    }
}

/// Overdue, or due at a time that no dispatcher with a good clock chose.
fn is_stuck(waiting: &Stored) -> bool {
    let due = waiting
        .header(header::SCHEDULE)
        .and_then(|text| text.strip_prefix("@at "));
    let due = due.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let now = clock::now_utc();
    due.is_some_and(|due| now > due + OVERDUE || due > now + clock::MAX_AHEAD + OVERDUE)
}
