//! A cluster under load, with endpoints that keep the ledger.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::{Cluster, eventually, wire};
use hookline_shared::stream_reader;
use serde_json::json;

use super::endpoint::{self, Endpoint, Mood};
use super::ledger::Ledger;
use super::load::{Load, SOURCE, Stream};

/// How much of a row is run.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Events a second.
    pub rate: u64,
    /// How long a fault lasts that has no length of its own.
    pub fault: Duration,
    /// How long the load runs before the fault, and after it.
    pub calm: Duration,
    /// How long what is late may take to arrive.
    pub deadline: Duration,
    /// Pairs of runs by which times are compared; zero: they are not.
    pub pairs: usize,
}

impl Size {
    /// As the table of the failure modes says.
    pub const FULL: Self = Self {
        rate: 1_000,
        fault: Duration::from_secs(30),
        calm: Duration::from_secs(5),
        deadline: Duration::from_secs(240),
        pairs: 5,
    };
    /// A few seconds, for a test; no time is compared.
    pub const SHORT: Self = Self {
        rate: 100,
        fault: Duration::from_secs(4),
        calm: Duration::from_secs(1),
        deadline: Duration::from_secs(60),
        pairs: 0,
    };
}

/// Deliveries that were not made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept {
    /// They wait or are due.
    pub parked: usize,
    /// They are given up on.
    pub dead: usize,
}

/// The stage of one row.
pub struct Stage {
    /// The servers and services.
    pub cluster: Cluster,
    /// The endpoints, each with a hook of its own.
    pub endpoints: Vec<Endpoint>,
    /// How much is run.
    pub size: Size,
    /// Where the load publishes.
    pub nats: String,
    /// When the row began.
    pub began: Instant,
}

impl Stage {
    /// Puts endpoints and their hooks onto a cluster that is running.
    ///
    /// # Errors
    /// When a hook cannot be created.
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

    /// Puts one more endpoint and its hook onto it.
    ///
    /// # Errors
    /// When the hook cannot be created.
    pub async fn add(&mut self, endpoint: Endpoint) -> Result<()> {
        hook(&self.cluster, &event(self.endpoints.len()), &endpoint.url).await?;
        self.endpoints.push(endpoint);
        Ok(())
    }

    /// Starts the load: every endpoint's event in turn.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn load(&self) -> Result<Load> {
        self.load_of(self.size.rate).await
    }

    /// As [`load`](Self::load), with another rate.
    ///
    /// # Errors
    /// When NATS cannot be reached.
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
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn only(&self, endpoint: usize, rate: u64) -> Result<Load> {
        let stream = self.streams().nth(endpoint).into_iter();
        Load::start(&self.nats, stream.collect(), rate).await
    }

    /// Starts a load of which half goes to the first so many endpoints, and half to so many others;
    /// nobody hears those events for which there is no endpoint.
    ///
    /// # Errors
    /// When NATS cannot be reached.
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

    /// Waits until everything that was acknowledged has arrived at these endpoints, for as long as
    /// the size allows. What is missing then, the ledger tells.
    pub async fn settle(&self, endpoints: &[usize]) {
        let arrived = eventually(self.size.deadline, "everything arrives", async || {
            for number in endpoints {
                let (_, open) = self.endpoints[*number].ledger.open();
                anyhow::ensure!(open == 0, "{open} are missing");
            }
            Ok(())
        });
        // The ledger is what counts.
        let _ = arrived.await;
    }

    /// Waits until every event is dealt with, and counts what was kept of them.
    ///
    /// # Errors
    /// When some stay open.
    pub async fn kept(&self) -> Result<Kept> {
        let nats = &self.cluster.nats;
        eventually(
            self.size.deadline,
            "every event is dealt with",
            async || {
                let open = nats.open_events().await?;
                anyhow::ensure!(open == 0, "{open} events are open");
                Ok(())
            },
        )
        .await?;
        Ok(Kept {
            parked: parked(nats.client()).await?,
            dead: usize::try_from(nats.count(wire::DEAD).await?)?,
        })
    }

    /// The sum of a metric over the dispatchers that answer.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut sum = 0.0;
        for dispatcher in &self.cluster.dispatchers {
            sum += dispatcher.metric(name, labels).await.unwrap_or_default();
        }
        sum
    }
}

/// Creates a hook that hears one event of the ledger.
///
/// # Errors
/// When the gateway does not take it.
pub async fn hook(cluster: &Cluster, event: &str, url: &str) -> Result<()> {
    let hook = json!({"source": SOURCE, "event": event, "handler": "webhook",
        "config": {"url": url, "secret": endpoint::SECRET}});
    let created = cluster.admin().create_hook(&hook).await;
    created.map(|_| ()).context("a hook of the ledger")
}

/// The event that the endpoint with this number hears.
#[must_use]
pub fn event(number: usize) -> String {
    format!("number-{number}")
}

/// How many deliveries wait or are due: one that is just being parked anew stands there twice.
async fn parked(client: &async_nats::Client) -> Result<usize> {
    let (mut ids, mut from) = (HashSet::new(), 1);
    loop {
        let stream = wire::DELIVERIES;
        let page =
            stream_reader::page(client, stream, "hookline.deliveries.>", from, 1_000).await?;
        let Some(last) = page.last() else {
            return Ok(ids.len());
        };
        from = last.sequence + 1;
        // Hook and delivery.
        let id = |subject: &str| subject.splitn(4, '.').nth(3).map(str::to_owned);
        ids.extend(page.iter().filter_map(|stored| id(&stored.subject)));
    }
}
