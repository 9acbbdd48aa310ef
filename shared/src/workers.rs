//! Which dispatchers live. Each says so every few seconds, and gateways listen; nothing is stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::subject::WORKERS;

/// Between signs of life.
const PERIOD: Duration = Duration::from_secs(2);
/// A dispatcher that was silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(7);
/// Before subscribing again.
const PAUSE: Duration = Duration::from_secs(1);
/// Dispatchers that are remembered.
const MOST: usize = 10_000;

/// A dispatcher's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// Of the process.
    pub id: Uuid,
    /// Messages that it may have in hand at the same time.
    pub permits: u32,
}

/// Gives signs of life.
pub async fn announce(client: Client, permits: u32) {
    let id = Uuid::new_v4();
    loop {
        let sign = Sign { id, permits };
        // Numbers and ids always serialize.
        let body = serde_json::to_vec(&sign).unwrap_or_default();
        if let Err(error) = client.publish(WORKERS, body.into()).await {
            tracing::debug!(%error, "cannot give a sign of life");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Workers(Arc<Mutex<HashMap<Uuid, (Instant, Sign)>>>);

impl Workers {
    /// Listens to signs of life.
    pub async fn follow(self, client: Client) {
        loop {
            match client.subscribe(WORKERS).await {
                Ok(mut signs) => {
                    while let Some(message) = signs.next().await {
                        match serde_json::from_slice(&message.payload) {
                            Ok(sign) => self.heard(sign),
                            Err(error) => {
                                tracing::debug!(%error, "a sign of life is not understood");
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot listen to dispatchers"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn heard(&self, sign: Sign) {
        let mut known = self.0.lock();
        known.retain(|_, (at, _)| at.elapsed() < SILENCE);
        if known.len() < MOST || known.contains_key(&sign.id) {
            known.insert(sign.id, (Instant::now(), sign));
        }
    }

    /// Those that gave a sign of life just now.
    #[must_use]
    pub fn alive(&self) -> Vec<Sign> {
        let known = self.0.lock();
        let alive = known.values().filter(|(at, _)| at.elapsed() < SILENCE);
        alive.map(|(_, sign)| *sign).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(permits: u32) -> Sign {
        Sign {
            id: Uuid::new_v4(),
            permits,
        }
    }

    #[test]
    fn a_dispatcher_counts_once_and_until_it_is_silent() {
        let workers = Workers::default();
        let (one, other) = (sign(1), sign(2));
        for heard in [one, other, Sign { permits: 5, ..one }] {
            workers.heard(heard);
        }
        let mut permits: Vec<_> = workers.alive().iter().map(|sign| sign.permits).collect();
        permits.sort_unstable();
        assert_eq!(permits, [2, 5]);
        let long_ago = Instant::now().checked_sub(SILENCE).expect("a time");
        workers.0.lock().insert(other.id, (long_ago, other));
        assert_eq!(workers.alive().len(), 1);
    }

    #[test]
    fn no_flood_of_signs_takes_more_than_its_memory() {
        let workers = Workers::default();
        for _ in 0..MOST {
            let sign = sign(0);
            workers.0.lock().insert(sign.id, (Instant::now(), sign));
        }
        workers.heard(sign(0));
        assert_eq!(workers.alive().len(), MOST);
    }
}
