//! Numbered events at a steady rate, published until they are acknowledged.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use async_nats::{HeaderMap, ServerAddr};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::ledger::Ledger;

/// The source of the ledger's events.
pub const SOURCE: &str = "chaos";
/// How often the load is topped up.
const TICK: Duration = Duration::from_millis(5);
/// The pause before an event that was not acknowledged is published again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long an event is published again before the load gives it up.
const PATIENCE: Duration = Duration::from_secs(60);

/// One stream of events, which one hook hears.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The event's name.
    pub event: String,
    /// The book of what arrives.
    pub ledger: Ledger,
}

/// A load that is running.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    offered: Arc<AtomicU64>,
    started: Instant,
    rate: u64,
    task: JoinHandle<()>,
    publishing: TaskTracker,
}

/// What became of a load.
#[derive(Debug, Clone, Copy)]
pub struct Offered {
    /// Events handed to NATS.
    pub events: u64,
    /// Events that the rate asked for in the time that it ran.
    pub asked: u64,
}

impl Load {
    /// Publishes `rate` events a second, to the streams in turn.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn start(nats: &str, streams: Vec<Stream>, rate: u64) -> Result<Self> {
        // The load is back at once, so that what takes long is Hookline's.
        let options = async_nats::ConnectOptions::new()
            .client_capacity(65_536)
            .reconnect_delay_callback(|_| Duration::from_millis(100));
        let servers: Result<Vec<ServerAddr>, _> = nats.split(',').map(str::parse).collect();
        let client = options
            .connect(servers?)
            .await
            .context("the load needs NATS")?;
        let context = jetstream::ContextBuilder::new()
            .timeout(Duration::from_secs(2))
            .max_ack_inflight(65_536)
            .build(client);
        let (stop, offered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (publishing, started) = (TaskTracker::new(), Instant::now());
        let (stopped, count, tracker) =
            (Arc::clone(&stop), Arc::clone(&offered), publishing.clone());
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            let mut next = 0;
            // A stream may come several times in one round.
            let mut numbers: HashMap<String, usize> = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
                while next < due {
                    let stream = streams[next as usize % streams.len()].clone();
                    let number = numbers.entry(stream.event.clone()).or_default();
                    let number = std::mem::replace(number, *number + 1);
                    tracker.spawn(publish(context.clone(), stream, number));
                    next += 1;
                }
                count.store(next, Ordering::Relaxed);
            }
        });
        Ok(Self {
            stop,
            offered,
            started,
            rate,
            task,
            publishing,
        })
    }

    /// Ends the load and waits until what was handed to NATS is acknowledged.
    ///
    /// # Errors
    /// When the load itself failed.
    pub async fn stop(self) -> Result<Offered> {
        self.stop.store(true, Ordering::Relaxed);
        let ran = self.started.elapsed();
        self.task.await?;
        self.publishing.close();
        self.publishing.wait().await;
        Ok(Offered {
            events: self.offered.load(Ordering::Relaxed),
            asked: (ran.as_secs_f64() * self.rate as f64) as u64,
        })
    }
}

async fn publish(context: jetstream::Context, stream: Stream, number: usize) {
    let subject = format!("hookline.events.default.{SOURCE}.{}", stream.event);
    let body = format!(
        r#"{{"number":{number},"operation":"create","entity":{{"id":"{number}","username":"user-{number}"}}}}"#
    );
    stream.ledger.published(number);
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        // The same id every time: what was stored without an answer is not stored twice.
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{}-{number}", stream.event));
        let sent = context.publish_with_headers(subject.clone(), headers, body.clone().into());
        if let Ok(acknowledged) = sent.await
            && acknowledged.await.is_ok()
        {
            return stream.ledger.acknowledged(number);
        }
        tokio::time::sleep(AGAIN).await;
    }
}
