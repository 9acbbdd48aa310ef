//! What is in the streams of deliveries and dead letters: parts of long lists, and counts.
//!
//! The server goes through all messages of a hook to count them. With a million it takes half a second,
//! in which the stream takes nothing in. So what took long to count is remembered for a while: however
//! often it is asked for, the server spends a twentieth of its time on it. It is asked over a connection
//! of its own, since the server takes nothing else from one meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Client;
use parking_lot::Mutex;
use tokio::time::Instant;

use hookline_shared::stream_reader::{self, Stored};

use super::error::Error;

/// A count is remembered if it took longer than this,
const LONG: Duration = Duration::from_millis(50);
/// for so many times as long as it took.
const COST: u32 = 20;

/// The streams, as the Admin API lists them.
#[derive(Debug)]
pub(crate) struct Lists {
    asking: Client,
    counts: Counts,
}

impl Lists {
    pub(super) fn new(asking: Client) -> Self {
        Self {
            asking,
            counts: Counts::default(),
        }
    }

    /// The connection over which the streams are read.
    pub(crate) fn asking(&self) -> &Client {
        &self.asking
    }

    /// Messages of a stream under `filter` from a sequence on, at most `size`, and how many there are in
    /// all. Where counting takes long, the number may be some seconds old.
    ///
    /// # Errors
    /// If the stream does not answer as it should.
    pub(crate) async fn list(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        size: usize,
    ) -> Result<(Vec<Stored>, u64), Error> {
        if let Some(count) = self.counts.known(filter) {
            let page = stream_reader::uncounted(&self.asking, stream, filter, from, size).await?;
            return Ok((page, count));
        }
        if from > 1 {
            let count = self.count(stream, filter).await?;
            let page = stream_reader::page(&self.asking, stream, filter, from, size).await?;
            return Ok((page, count));
        }
        let asked = Instant::now();
        let (page, count) = stream_reader::beginning(&self.asking, stream, filter, size).await?;
        self.counts.remember(filter, count, asked.elapsed());
        Ok((page, count))
    }

    /// How many messages of a stream there are under `filter`, as [`list`](Self::list) says it.
    ///
    /// # Errors
    /// If the stream does not answer as it should.
    pub(crate) async fn count(&self, stream: &str, filter: &str) -> Result<u64, Error> {
        if let Some(count) = self.counts.known(filter) {
            return Ok(count);
        }
        let asked = Instant::now();
        let count = stream_reader::count(&self.asking, stream, filter).await?;
        self.counts.remember(filter, count, asked.elapsed());
        Ok(count)
    }
}

/// The counts that took long, by their filters.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<String, Counted>>);

#[derive(Debug, Clone, Copy)]
struct Counted {
    count: u64,
    took: Duration,
    until: Instant,
}

impl Counts {
    /// A count that is remembered. Once its time is over one caller is told to count anew; the others
    /// are told the old one for as long as that takes.
    fn known(&self, filter: &str) -> Option<u64> {
        let (mut counts, now) = (self.0.lock(), Instant::now());
        let counted = counts.get_mut(filter)?;
        if counted.until <= now {
            counted.until = now + counted.took * COST;
            return None;
        }
        Some(counted.count)
    }

    fn remember(&self, filter: &str, count: u64, took: Duration) {
        let (mut counts, now) = (self.0.lock(), Instant::now());
        counts.retain(|_, counted| counted.until > now);
        counts.remove(filter);
        if took >= LONG {
            let until = now + took * COST;
            counts.insert(filter.to_owned(), Counted { count, took, until });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_took_long_is_counted_anew_by_one_at_a_time() {
        let counts = Counts::default();
        counts.remember("short", 3, LONG / 2);
        counts.remember("long", 7, LONG);
        assert_eq!(counts.known("short"), None);
        assert_eq!(counts.known("long"), Some(7));
        tokio::time::advance(LONG * COST).await;
        assert_eq!(counts.known("long"), None, "one counts");
        assert_eq!(counts.known("long"), Some(7), "the others do not");
        counts.remember("long", 8, LONG);
        assert_eq!(counts.known("long"), Some(8));
        counts.remember("long", 1, LONG / 2);
        assert_eq!(counts.known("long"), None);
    }
}
