//! Pages and counts of the streams of deliveries and dead letters.
//!
//! The server walks all messages of a hook to count them. A million take half a second, in which the
//! stream accepts no writes. So a slow count is cached for 20 times as long as it took: however often
//! it is requested, it costs the server at most a twentieth of its time. Lists have a connection of
//! their own, because the server processes nothing else from it meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Client;
use parking_lot::Mutex;
use tokio::time::Instant;

use hookline_shared::stream_reader::{self, Stored};

use super::error::Error;

/// A count that took at least this long is cached.
const SLOW: Duration = Duration::from_millis(50);
/// Cache lifetime, as a multiple of the time that the count took.
const LIFETIME_FACTOR: u32 = 20;

#[derive(Debug)]
pub(crate) struct Lists {
    client: Client,
    counts: Counts,
}

impl Lists {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            counts: Counts::default(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Up to `size` messages under `filter` from a sequence on, and the total count, which may be some
    /// seconds old if counting is slow.
    pub(crate) async fn list(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        size: usize,
    ) -> Result<(Vec<Stored>, u64), Error> {
        if let Some(count) = self.counts.cached(filter) {
            let page = stream_reader::uncounted(&self.client, stream, filter, from, size).await?;
            return Ok((page, count));
        }
        if from > 1 {
            let count = self.count(stream, filter).await?;
            let page = stream_reader::page(&self.client, stream, filter, from, size).await?;
            return Ok((page, count));
        }
        let asked = Instant::now();
        let (page, count) = stream_reader::beginning(&self.client, stream, filter, size).await?;
        self.counts.cache(filter, count, asked.elapsed());
        Ok((page, count))
    }

    /// The number of messages under `filter`, with the same caching as [`list`](Self::list).
    pub(crate) async fn count(&self, stream: &str, filter: &str) -> Result<u64, Error> {
        if let Some(count) = self.counts.cached(filter) {
            return Ok(count);
        }
        let asked = Instant::now();
        let count = stream_reader::count(&self.client, stream, filter).await?;
        self.counts.cache(filter, count, asked.elapsed());
        Ok(count)
    }
}

/// Slow counts by filter.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<String, Counted>>);

#[derive(Debug, Clone, Copy)]
struct Counted {
    count: u64,
    took: Duration,
    until: Instant,
}

impl Counts {
    /// Once a count has expired, one caller gets `None` and counts again; the others get the old count
    /// meanwhile.
    fn cached(&self, filter: &str) -> Option<u64> {
        let (mut counts, now) = (self.0.lock(), Instant::now());
        let counted = counts.get_mut(filter)?;
        if counted.until <= now {
            counted.until = now + counted.took * LIFETIME_FACTOR;
            return None;
        }
        Some(counted.count)
    }

    fn cache(&self, filter: &str, count: u64, took: Duration) {
        let (mut counts, now) = (self.0.lock(), Instant::now());
        counts.retain(|_, counted| counted.until > now);
        counts.remove(filter);
        if took >= SLOW {
            let until = now + took * LIFETIME_FACTOR;
            counts.insert(filter.to_owned(), Counted { count, took, until });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_expired_slow_count_is_repeated_by_one_caller_at_a_time() {
        let counts = Counts::default();
        counts.cache("short", 3, SLOW / 2);
        counts.cache("long", 7, SLOW);
        assert_eq!(counts.cached("short"), None);
        assert_eq!(counts.cached("long"), Some(7));
        tokio::time::advance(SLOW * LIFETIME_FACTOR).await;
        assert_eq!(counts.cached("long"), None, "one counts");
        assert_eq!(counts.cached("long"), Some(7), "the others do not");
        counts.cache("long", 8, SLOW);
        assert_eq!(counts.cached("long"), Some(8));
        counts.cache("long", 1, SLOW / 2);
        assert_eq!(counts.cached("long"), None);
    }
}
