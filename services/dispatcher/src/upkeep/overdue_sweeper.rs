//! Sweeping parked deliveries: what should have fallen due and did not is parked anew, and what
//! belongs to a hook that is deleted is purged.
//!
//! A schedule that comes due while the server's storage is exhausted stays where it is, also when
//! there is room again. So all that waits is looked through, a few at a time. Dispatchers take turns
//! through Redis; without it several may sweep, which costs work and does no harm.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures::future::try_join_all;
use hookline_shared::stream_reader::{self, Stored};
use hookline_shared::subject::{self, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::hooks::Index;
use crate::metrics::Metrics;
use crate::redis::workers::Workers;
use crate::settle::Settle;

/// How long a turn lasts at most, and the pause before one is asked for again.
const TURN: Duration = Duration::from_secs(10);
/// For how many times as long as it took to look at a few messages the server is then left alone:
/// many at once would keep deliveries waiting.
const COST: u32 = 20;
/// How late a delivery may be before it is parked anew.
const OVERDUE: Duration = Duration::from_secs(30);
/// Over how long what was overdue is spread.
const SPREAD: Duration = Duration::from_secs(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sweeps.
pub(crate) struct Sweeper {
    /// The connection.
    pub context: jetstream::Context,
    pub settle: Arc<Settle>,
    /// Which hooks there are.
    pub index: Arc<Index>,
    pub workers: Workers,
    /// Metrics.
    pub metrics: Metrics,
}

impl Sweeper {
    /// Sweeps for ever, pausing once all is looked through or while it is another's turn.
    pub(crate) async fn run(self) {
        let mut from = 1;
        loop {
            tokio::time::sleep(TURN).await;
            while self.workers.turn("sweeper", TURN).await && self.turn(&mut from).await {}
        }
    }

    /// Sweeps for one turn, and says whether there is more.
    async fn turn(&self, from: &mut u64) -> bool {
        let end = Instant::now() + TURN;
        while Instant::now() < end {
            match self.some(*from).await {
                Ok(Some((next, pause))) => {
                    *from = next;
                    tokio::time::sleep(pause).await;
                }
                Ok(None) => {
                    *from = 1;
                    return false;
                }
                Err(error) => {
                    tracing::debug!(%error, "the parked deliveries cannot be swept now");
                    return false;
                }
            }
        }
        true
    }

    /// Sweeps a few, and says where to go on and after which pause, or that there are no more. A page of
    /// a stream would cost the server a walk through all of its subjects.
    async fn some(&self, from: u64) -> Result<Option<(u64, Duration)>, BoxError> {
        let (client, all) = (self.context.client(), subject::ALL_SUBJECTS);
        let began = Instant::now();
        let mut few = stream_reader::few(&client, subject::DELIVERIES_STREAM, all, from).await?;
        let pause = began.elapsed() * COST;
        let Some(next) = few.last().map(|last| last.sequence + 1) else {
            return Ok(None);
        };
        few.retain(|stored| subject::parse_wait_subject(&stored.subject).is_some());
        self.purge_deleted(&few).await?;
        let overdue = few.iter().filter(|waiting| is_overdue(waiting));
        // All at once: they share few commits.
        try_join_all(overdue.map(|waiting| self.park_again(waiting))).await?;
        Ok(Some((next, pause)))
    }

    /// Hooks that are deleted leave nothing behind.
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
        // A hook that is newer than this has nothing among them.
        self.index.catch_up().await?;
        let deleted = unknown(&self.index);
        let stream = self.context.get_stream_no_info(subject::DELIVERIES_STREAM);
        let stream = stream.await?;
        for hook in deleted {
            let purged = stream.purge().filter(subject::waits_of(hook)).await?.purged;
            tracing::info!(hook, purged, "a deleted hook's deliveries are purged");
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

fn is_overdue(waiting: &Stored) -> bool {
    let due = waiting
        .header(header::SCHEDULE)
        .and_then(|text| text.strip_prefix("@at "));
    let due = due.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    due.is_some_and(|due| OffsetDateTime::now_utc() > due + OVERDUE)
}
