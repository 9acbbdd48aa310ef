//! The bare pipe (JetStream pull, HTTP POST, ack, nothing else) and each of its parts alone: the
//! reference of every ratio.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_nats::jetstream::{self, consumer::pull};
use e2e::Cluster;
use futures::{StreamExt as _, TryStreamExt as _};
use redis::AsyncCommands as _;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::question::Question;
use crate::receiver::Receiver;
use crate::report::{Measure, Section, median};
use crate::rig;

pub const STREAM: &str = "LIMIT";
pub const SUBJECT: &str = "limit.events";
pub const CONSUMER: &str = "limit";
/// Messages per pull.
const PULL: usize = 512;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events, requests or calls per run.
    #[arg(long, default_value_t = 20_000)]
    pub events: u64,
    /// Runs; the median counts.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Concurrent requests or calls.
    #[arg(long, default_value_t = 32)]
    pub concurrency: usize,
}

impl Question for Options {
    const NAME: &'static str = "limit";

    fn full() -> Self {
        Self {
            events: 60_000,
            runs: 5,
            concurrency: 32,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

async fn measure(options: &Options) -> Result<Section> {
    let mut rates: [Vec<f64>; 5] = Default::default();
    for _ in 0..options.runs {
        let events = options.events;
        rates[0].push(pipe(events, options.concurrency).await?);
        rates[1].push(consume(events).await?);
        rates[2].push(publish(events).await?);
        rates[3].push(http(events, options.concurrency).await?);
        rates[4].push(redis(events, options.concurrency).await?);
    }
    let names = [
        "bare pipe: pull, POST, ack",
        "bare consume: pull, ack",
        "bare publish",
        "bare HTTP: POST",
        "bare Redis: SET",
    ];
    let measures = names.into_iter().zip(rates);
    let measures = measures.map(|(name, rates)| Measure::stated(name, median(rates), "/s"));
    Ok(Section {
        title: "Limit: this machine without Hookline".to_owned(),
        about: format!(
            "Events of 200 bytes, {} concurrent requests or calls, the median of {} runs.",
            options.concurrency, options.runs
        ),
        measures: measures.collect(),
        plots: Vec::new(),
    })
}

/// Events per second through the bare pipe.
pub async fn pipe(events: u64, concurrency: usize) -> Result<f64> {
    let cluster = bare().await?;
    let mut receiver = Receiver::start().await?;
    rig::store(&cluster.nats.jetstream(), SUBJECT, events).await?;
    let pipe = start(&cluster.nats.url(), &receiver.url, concurrency).await?;
    let took = receiver.measure(events).await?;
    drop(pipe);
    cluster.finish_unchecked().await?;
    rig::rate(events, took)
}

/// Messages per second, pulled and acked.
pub async fn consume(events: u64) -> Result<f64> {
    let cluster = bare().await?;
    let context = cluster.nats.jetstream();
    rig::store(&context, SUBJECT, events).await?;
    let mut messages = messages(&cluster.nats.url()).await?;
    let task = AbortOnDrop(tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            if let Ok(message) = message {
                let _ = message.ack().await;
            }
        }
    }));
    let took = rig::drained(&context, STREAM, CONSUMER).await?;
    drop(task);
    cluster.finish_unchecked().await?;
    rig::rate(events, took)
}

async fn publish(events: u64) -> Result<f64> {
    let cluster = bare().await?;
    let began = Instant::now();
    rig::store(&cluster.nats.jetstream(), SUBJECT, events).await?;
    let took = began.elapsed();
    cluster.finish_unchecked().await?;
    rig::rate(events, took)
}

async fn http(events: u64, concurrency: usize) -> Result<f64> {
    let receiver = Receiver::start().await?;
    let (client, url, body) = (http_client()?, receiver.url.as_str(), rig::event(0));
    let began = Instant::now();
    futures::stream::iter(0..events)
        .map(|_| client.post(url).body(body.clone()).send())
        .buffer_unordered(concurrency)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    rig::rate(events, began.elapsed())
}

async fn redis(events: u64, concurrency: usize) -> Result<f64> {
    let cluster = bare().await?;
    let client = redis::Client::open(cluster.redis.url())?;
    let connection = client.get_multiplexed_async_connection().await?;
    let began = Instant::now();
    let calls = futures::stream::iter(0..events).map(|number| {
        let mut connection = connection.clone();
        async move {
            connection
                .set_ex(number, "L1:1700000000000:token", 60)
                .await
        }
    });
    calls
        .buffer_unordered(concurrency)
        .try_for_each(|()| async { redis::RedisResult::Ok(()) })
        .await?;
    let took = began.elapsed();
    cluster.finish_unchecked().await?;
    rig::rate(events, took)
}

/// Servers without services, and the stream of the bare pipe.
async fn bare() -> Result<Cluster> {
    let builder = Cluster::builder().gateways(0).dispatchers(0);
    let cluster = builder.nats_store(e2e::Store::Unsynced).start().await?;
    create_stream(&cluster.nats.jetstream()).await?;
    Ok(cluster)
}

/// Creates the stream.
pub async fn create_stream(context: &jetstream::Context) -> Result<()> {
    let config = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        ..Default::default()
    };
    context.get_or_create_stream(config).await?;
    Ok(())
}

async fn messages(nats: &str) -> Result<pull::Stream> {
    let context = jetstream::new(async_nats::connect(nats).await?);
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        max_ack_pending: 100_000,
        ..Default::default()
    };
    let consumer = context.create_consumer_on_stream(config, STREAM).await?;
    let messages = consumer.stream().max_messages_per_batch(PULL).messages();
    Ok(messages.await?)
}

fn http_client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// Runs the pipe until the result is dropped.
pub async fn start(nats: &str, url: &str, concurrency: usize) -> Result<AbortOnDrop> {
    let mut messages = messages(nats).await?;
    let client = http_client()?;
    let (permits, url) = (Arc::new(Semaphore::new(concurrency)), url.to_owned());
    let task = tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let Ok(message) = message else { continue };
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let post = client.post(url).timeout(Duration::from_secs(15));
                if post.body(message.payload.clone()).send().await.is_ok() {
                    let _ = message.ack().await;
                }
            });
        }
    });
    Ok(AbortOnDrop(task))
}

pub struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
