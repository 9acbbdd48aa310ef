//! The workers that share a Redis: how many are alive, and whose turn it is at work that one does for all. Without
//! Redis the last count stands, and every worker takes every turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::Script;
use uuid::Uuid;

use super::client::RedisClient;
use super::keys::Key;
use super::script_call::{ScriptCall, millis};

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Inner>);

struct Inner {
    redis: RedisClient,
    own: u64,
    count: AtomicU32,
    alive: Script,
    turn: Script,
}

impl Workers {
    pub(crate) fn new(redis: RedisClient) -> Self {
        Self(Arc::new(Inner {
            redis,
            own: Uuid::new_v4().as_u64_pair().0,
            count: AtomicU32::new(1),
            alive: Script::new(include_str!("workers.lua")),
            turn: Script::new(include_str!("turn.lua")),
        }))
    }

    /// This worker's random id.
    pub(crate) fn own(&self) -> u64 {
        self.0.own
    }

    /// This worker included.
    pub(crate) fn count(&self) -> u32 {
        self.0.count.load(Ordering::Relaxed).max(1)
    }

    /// Counts this worker as alive for `time`.
    pub(crate) async fn is_alive(&self, time: Duration) {
        let mut call = ScriptCall::new(&self.0.alive, 1);
        call.key(Key::Workers).arg(self.0.own).arg(millis(time));
        if let Some(count) = self.0.redis.call("workers", &call).await {
            self.0.count.store(count, Ordering::Relaxed);
        }
    }

    /// Takes the turn at `what` for `time`. False: another worker has it.
    pub(crate) async fn turn(&self, what: &str, time: Duration) -> bool {
        let mut call = ScriptCall::new(&self.0.turn, 1);
        call.key(Key::Turn(what)).arg(self.0.own).arg(millis(time));
        self.0.redis.call(what, &call).await.unwrap_or(true)
    }
}
