//! Publishes numbered events at a steady rate, each until NATS acknowledges it.

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

/// The source of all events of the load.
pub const SOURCE: &str = "chaos";
/// How often due events are published.
const TICK: Duration = Duration::from_millis(5);
/// Pause before an unacknowledged event is published again.
const AGAIN: Duration = Duration::from_millis(200);
/// When to give up on an event that is not acknowledged.
const PATIENCE: Duration = Duration::from_secs(60);

/// The events of one hook.
#[derive(Debug, Clone)]
pub struct Stream {
    pub event: String,
    pub ledger: Ledger,
}

#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    offered: Arc<AtomicU64>,
    /// Events that were due so far.
    asked: Arc<AtomicU64>,
    rate: Arc<AtomicU64>,
    task: JoinHandle<()>,
    publishing: TaskTracker,
}

/// How much load there was.
#[derive(Debug, Clone, Copy)]
pub struct Offered {
    /// Events whose publishing began.
    pub events: u64,
    /// Events that were due.
    pub asked: u64,
}

impl Load {
    /// Publishes `rate` events per second, to the streams in turn.
    pub async fn start(nats: &str, streams: Vec<Stream>, rate: u64) -> Result<Self> {
        // Reconnects fast, so that long pauses are Hookline's.
        let options = async_nats::ConnectOptions::new()
            .client_capacity(65_536)
            .reconnect_delay_callback(|_| Duration::from_millis(100));
        let servers: Result<Vec<ServerAddr>, _> = nats.split(',').map(str::parse).collect();
        let client = options
            .connect(servers?)
            .await
            .context("the load cannot connect to NATS")?;
        let context = jetstream::ContextBuilder::new()
            .timeout(Duration::from_secs(2))
            .max_ack_inflight(65_536)
            .build(client);
        let (stop, offered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let publishing = TaskTracker::new();
        let (asked, rate) = (Arc::<AtomicU64>::default(), Arc::new(AtomicU64::new(rate)));
        let (due, now) = (Arc::clone(&asked), Arc::clone(&rate));
        let (stopped, count, tracker) =
            (Arc::clone(&stop), Arc::clone(&offered), publishing.clone());
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            let (mut next, mut last, mut sum) = (0, Instant::now(), 0.0);
            // A stream may have several turns in one round.
            let mut numbers: HashMap<String, usize> = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let passed = last.elapsed();
                last += passed;
                sum += passed.as_secs_f64() * now.load(Ordering::Relaxed) as f64;
                due.store(sum as u64, Ordering::Relaxed);
                while next < sum as u64 {
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
            asked,
            rate,
            task,
            publishing,
        })
    }

    /// Goes on at another rate.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Ends the load and waits for outstanding acknowledgements.
    pub async fn stop(self) -> Result<Offered> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        self.publishing.close();
        self.publishing.wait().await;
        Ok(Offered {
            events: self.offered.load(Ordering::Relaxed),
            asked: self.asked.load(Ordering::Relaxed),
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
        // With the same id each time, an event whose acknowledgement was lost is not stored twice.
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
