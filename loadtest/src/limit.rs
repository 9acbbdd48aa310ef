//! The bare pipe: JetStream pull, HTTP POST, ack, and nothing else; and each of its parts alone. What
//! every ratio is made with.

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

/// The stream that the bare pipe works on.
pub const STREAM: &str = "LIMIT";
/// Its subject.
pub const SUBJECT: &str = "limit.events";
/// Its consumer.
pub const CONSUMER: &str = "limit";
/// Messages of one pull.
const PULL: usize = 512;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events, requests or calls of each run.
    #[arg(long, default_value_t = 20_000)]
    pub events: u64,
    /// Runs, of which the median counts.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Requests or calls at the same time.
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

/// Measures each part alone, and all together.
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
        title: "Limit: what this machine does without Hookline".to_owned(),
        about: format!(
            "Events of 200 bytes, {} requests or calls at the same time, the median of {} runs.",
            options.concurrency, options.runs
        ),
        measures: measures.collect(),
        plots: Vec::new(),
    })
}

/// Events a second through the bare pipe.
///
/// # Errors
/// When a server does not start or something gets stuck.
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

/// Messages a second, pulled and acked.
///
/// # Errors
/// When a server does not start or something gets stuck.
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

/// Servers alone, with the stream of the bare pipe.
async fn bare() -> Result<Cluster> {
    let builder = Cluster::builder().gateways(0).dispatchers(0);
    let cluster = builder.nats_store(e2e::Store::Unsynced).start().await?;
    create_stream(&cluster.nats.jetstream()).await?;
    Ok(cluster)
}

/// Creates the stream, with the settings of Hookline's own.
///
/// # Errors
/// When NATS refuses it.
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

/// Runs the pipe until the handle is dropped.
///
/// # Errors
/// When NATS refuses the consumer.
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

/// Ends a task when it is dropped.
pub struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
