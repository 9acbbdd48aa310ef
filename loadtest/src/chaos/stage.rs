//! The setting of one fault: a cluster, endpoints with a hook each, and load on them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::{Cluster, eventually, wire};
use hookline_shared::stream_reader;
use hookline_shared::subject::ALL_SUBJECTS;
use serde_json::json;

use super::endpoint::{self, Endpoint, Mood};
use super::ledger::Ledger;
use super::load::{Load, SOURCE, Stream};

/// How long and how hard a fault is run.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Events per second.
    pub rate: u64,
    /// Duration of faults without a fixed one.
    pub fault: Duration,
    /// Load before and after the fault.
    pub calm: Duration,
    /// Time allowed for late deliveries.
    pub deadline: Duration,
    /// Pairs of runs to compare p99s by; with zero they are not compared.
    pub pairs: usize,
}

impl Size {
    /// The size behind `docs/failure-modes.md`.
    pub const FULL: Self = Self {
        rate: 1_000,
        fault: Duration::from_secs(30),
        calm: Duration::from_secs(5),
        deadline: Duration::from_secs(240),
        pairs: 5,
    };
    /// A few seconds, for tests.
    pub const SHORT: Self = Self {
        rate: 100,
        fault: Duration::from_secs(4),
        calm: Duration::from_secs(1),
        deadline: Duration::from_secs(60),
        pairs: 0,
    };
}

/// Deliveries that were stored instead of made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept {
    pub parked: usize,
    pub dead: usize,
}

pub struct Stage {
    pub cluster: Cluster,
    /// Endpoint N has a hook on the event `number-N`.
    pub endpoints: Vec<Endpoint>,
    pub size: Size,
    /// Where the load publishes.
    pub nats: String,
    pub began: Instant,
}

impl Stage {
    /// Adds endpoints and their hooks to a running cluster.
    pub async fn set(cluster: Cluster, moods: &[Mood], size: Size) -> Result<Self> {
        let mut stage = Self {
            nats: cluster.nats.url(),
            cluster,
            endpoints: Vec::new(),
            size,
            began: Instant::now(),
        };
        for mood in moods {
            stage.add(Endpoint::start(*mood).await?).await?;
        }
        stage.began = Instant::now();
        Ok(stage)
    }

    pub async fn add(&mut self, endpoint: Endpoint) -> Result<()> {
        hook(&self.cluster, &event(self.endpoints.len()), &endpoint.url).await?;
        self.endpoints.push(endpoint);
        Ok(())
    }

    /// Starts a load for all endpoints in turn.
    pub async fn load(&self) -> Result<Load> {
        self.load_of(self.size.rate).await
    }

    /// As [`load`](Self::load), at another rate.
    pub async fn load_of(&self, rate: u64) -> Result<Load> {
        Load::start(&self.nats, self.streams().collect(), rate).await
    }

    fn streams(&self) -> impl Iterator<Item = Stream> {
        let endpoints = self.endpoints.iter().enumerate();
        endpoints.map(|(number, endpoint)| Stream {
            event: event(number),
            ledger: endpoint.ledger.clone(),
        })
    }

    /// Starts a load for one endpoint.
    pub async fn only(&self, endpoint: usize, rate: u64) -> Result<Load> {
        let stream = self.streams().nth(endpoint).into_iter();
        Load::start(&self.nats, stream.collect(), rate).await
    }

    /// Starts a load of which half goes to the first `first` endpoints and half to the next `others`.
    /// Missing endpoints get their share of events too, but no hook hears those.
    pub async fn halves(&self, first: usize, others: usize) -> Result<Load> {
        let unheard = (self.endpoints.len()..first + others).map(|number| Stream {
            event: event(number),
            ledger: Ledger::default(),
        });
        let streams: Vec<_> = self.streams().chain(unheard).collect();
        let (first, others) = streams.split_at(first);
        let turns = (0..first.len().max(others.len())).flat_map(|turn| {
            let one = |part: &[Stream]| part.get(turn % part.len().max(1)).cloned();
            [one(first), one(others)]
        });
        Load::start(&self.nats, turns.flatten().collect(), self.size.rate).await
    }

    /// Waits up to the deadline until all acknowledged events have arrived at these endpoints.
    pub async fn settle(&self, endpoints: &[usize]) {
        let arrived = eventually(self.size.deadline, "everything arrives", async || {
            for number in endpoints {
                let (_, open) = self.endpoints[*number].ledger.open();
                anyhow::ensure!(open == 0, "{open} are missing");
            }
            Ok(())
        });
        // After a timeout, the ledger has the missing ones.
        let _ = arrived.await;
    }

    /// Waits until the deliveries of all endpoints from number `first` on are parked or dead: one per event, and
    /// the ping of each hook. Deliveries move while they are counted, so it counts until none is missing.
    ///
    /// # Errors
    /// When some are missing past the deadline, or an event stays open.
    pub async fn kept(&self, first: usize) -> Result<Kept> {
        let endpoints = &self.endpoints[first..];
        let events = endpoints.iter().map(|endpoint| endpoint.ledger.open().0);
        let (events, pings) = (events.sum::<usize>(), endpoints.len());
        let nats = &self.cluster.nats;
        eventually(self.size.deadline, "all are parked or dead", async || {
            let open = nats.open_events().await?;
            anyhow::ensure!(open == 0, "{open} events are open");
            let parked = deliveries(nats.client(), wire::DELIVERIES).await?;
            let dead = deliveries(nats.client(), wire::DEAD).await?;
            let kept = parked.union(&dead).count();
            let (parked, dead) = (kept - dead.len(), dead.len());
            anyhow::ensure!(
                kept == events + pings,
                "{parked} parked and {dead} dead, of {events} events and {pings} pings"
            );
            Ok(Kept { parked, dead })
        })
        .await
    }

    /// The sum over the dispatchers that answer.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut sum = 0.0;
        for dispatcher in &self.cluster.dispatchers {
            sum += dispatcher.metric(name, labels).await.unwrap_or_default();
        }
        sum
    }
}

pub async fn hook(cluster: &Cluster, event: &str, url: &str) -> Result<()> {
    let hook = json!({"source": SOURCE, "event": event, "handler": "webhook",
        "config": {"url": url, "secret": endpoint::SECRET}});
    let created = cluster.admin().create_hook(&hook).await;
    created.map(|_| ()).context("cannot create a hook")
}

/// The event that this endpoint's hook hears.
#[must_use]
pub fn event(number: usize) -> String {
    format!("number-{number}")
}

/// The deliveries in a stream, each as `<hook>.<delivery>`. One that is just being parked again has two messages.
async fn deliveries(client: &async_nats::Client, stream: &str) -> Result<HashSet<String>> {
    let (mut ids, mut from) = (HashSet::new(), 1);
    loop {
        let page = stream_reader::page(client, stream, ALL_SUBJECTS, from, 1_000).await?;
        let Some(last) = page.last() else {
            return Ok(ids);
        };
        from = last.sequence + 1;
        let id = |subject: &str| {
            let (hook, delivery) = subject.rsplit_once('.')?;
            let (_, hook) = hook.rsplit_once('.')?;
            Some(format!("{hook}.{delivery}"))
        };
        ids.extend(page.iter().filter_map(|stored| id(&stored.subject)));
    }
}
