//! Which worker makes which attempt: claims on deliveries in Redis.
//!
//! One key a delivery holds its state: claimed by a worker until a time, parked or buried after an
//! attempt, or done. One script decides in one round trip what a worker that holds a message may
//! do. A claim carries a token: a worker whose claim ran out and was taken over finds another token
//! (or state) there, and its result counts for nothing.
//!
//! Redis is not needed to deliver. When it does not answer, attempts are made without a claim, so
//! at least once; a setting makes them wait instead.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookline_shared::event::DeliveryId;
use redis::Script;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::coordinator::Coordinator;
use crate::metrics::Metrics;

/// How much longer than the dedupe window the state of a claimed delivery is kept.
const KEEP: Duration = Duration::from_secs(3_600);

/// The state is `D` (done), `P<attempt>` (parked or buried after it), or
/// `L<attempt>:<until>:<token>` (claimed; `until` in Unix milliseconds by Redis's clock).
const CLAIM: &str = r"
local state = redis.call('GET', KEYS[1])
local attempt = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if state then
  local kind = string.sub(state, 1, 1)
  if kind == 'D' then return {'done', 0} end
  if kind == 'P' then
    if tonumber(string.sub(state, 2)) >= attempt then return {'parked', 0} end
  else
    local held, till = string.match(state, '^L(%d+):(%d+):')
    if tonumber(till) > now then return {'busy', tonumber(till) - now} end
    if tonumber(held) > attempt then return {'parked', 0} end
  end
end
local till = string.format('%.0f', now + ARGV[3])
redis.call('SET', KEYS[1], 'L' .. attempt .. ':' .. till .. ':' .. ARGV[2], 'PX', ARGV[4])
return {'attempt', 0}
";

/// Lengthens a claim, if it is still the caller's. A key that is gone (a Redis that lost its data)
/// is claimed again.
const RENEW: &str = r"
local state = redis.call('GET', KEYS[1])
if state and string.match(state, ':([^:]*)$') ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local till = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3])
redis.call('SET', KEYS[1], 'L' .. ARGV[1] .. ':' .. till .. ':' .. ARGV[2], 'PX', ARGV[4])
return 1
";

/// Ends a claim with a final state, if it is still the caller's.
const FINISH: &str = r"
local state = redis.call('GET', KEYS[1])
if state and string.match(state, ':([^:]*)$') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

/// What a worker may do with a delivery.
#[derive(Debug)]
pub enum Answer {
    /// Make the attempt.
    Attempt(Lease),
    /// Nothing: it was delivered before.
    Done,
    /// Nothing: this attempt was parked or buried before.
    Parked,
    /// Come back later: a live worker holds it.
    Busy(Duration),
    /// Come back later: Redis is away, and deliveries are to wait for it.
    Unavailable,
}

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Delivered.
    Done,
    /// Parked for that long, or buried.
    Parked(Duration),
    /// Given back: the attempt was not made, or not settled.
    Released,
}

/// A claim on a delivery. It is renewed until it is dropped.
#[derive(Debug)]
pub struct Lease {
    claim: Claim,
    lost: CancellationToken,
    held: Arc<Held>,
}

#[derive(Debug, Clone)]
struct Claim {
    hook: String,
    key: String,
    attempt: u32,
    token: String,
}

#[derive(Debug, Default)]
struct Held(Mutex<HashMap<String, (Claim, CancellationToken)>>);

impl Lease {
    /// Resolves when another worker has taken the delivery over.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.claim.token);
    }
}

/// Makes claims; clones share it.
#[derive(Clone)]
pub struct Accept {
    inner: Arc<Inner>,
}

struct Inner {
    redis: Coordinator,
    claim: Script,
    renew: Script,
    finish: Script,
    held: Arc<Held>,
    worker: String,
    counter: AtomicU64,
    options: Options,
    metrics: Metrics,
}

/// How claims are made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// How long a delivery that was made is remembered.
    pub window: Duration,
    /// Whether deliveries wait while Redis is away.
    pub required: bool,
}

impl Accept {
    /// Makes claims in Redis.
    #[must_use]
    pub fn new(redis: Coordinator, options: Options, metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                redis,
                claim: Script::new(CLAIM),
                renew: Script::new(RENEW),
                finish: Script::new(FINISH),
                held: Arc::default(),
                worker: Uuid::new_v4().simple().to_string(),
                counter: AtomicU64::new(0),
                options,
                metrics,
            }),
        }
    }

    /// Claims attempt `attempt` of a delivery, if it is to be made.
    pub async fn accept(&self, hook: &str, delivery: &DeliveryId, attempt: u32) -> Answer {
        let inner = &self.inner;
        let number = inner.counter.fetch_add(1, Ordering::Relaxed);
        let token = format!("{}-{number}", inner.worker);
        let claim = Claim {
            hook: hook.to_owned(),
            key: key(hook, delivery),
            attempt,
            token: token.clone(),
        };
        let mut call = inner.claim.key(&claim.key);
        call.arg(attempt)
            .arg(&token)
            .arg(millis(inner.options.lease))
            .arg(millis(inner.options.window + KEEP));
        let answer: Option<(String, u64)> = inner.redis.call(hook, &call).await;
        match answer.as_ref().map(|(word, wait)| (word.as_str(), *wait)) {
            Some(("done", _)) => Answer::Done,
            Some(("parked", _)) => Answer::Parked,
            Some(("busy", wait)) => Answer::Busy(Duration::from_millis(wait)),
            Some(_) => Answer::Attempt(inner.hold(claim)),
            None if inner.options.required => Answer::Unavailable,
            // The claim may have been made all the same, so it keeps its token.
            None => {
                inner.metrics.redis_skipped();
                Answer::Attempt(inner.hold(claim))
            }
        }
    }

    /// Makes sure that the claim is still this worker's, and stays so for a lease. Without Redis
    /// nobody can tell, and the answer is yes.
    pub async fn renew(&self, lease: &Lease) -> bool {
        self.inner.renew_claim(&lease.claim).await.unwrap_or(true)
    }

    /// Ends a claim. False: another worker has taken the delivery over.
    pub async fn finish(&self, lease: &Lease, end: End) -> bool {
        self.inner.end(&lease.claim, end).await.unwrap_or(true)
    }

    /// Gives back every claim that is still held, at a shutdown whose deadline has passed.
    pub async fn release_all(&self) {
        let claims: Vec<Claim> = self
            .inner
            .held
            .all()
            .into_iter()
            .map(|(claim, _)| claim)
            .collect();
        for claim in claims {
            self.inner.end(&claim, End::Released).await;
        }
    }

    /// Renews what is held, for ever.
    pub async fn keep_leases(&self) {
        let inner = &self.inner;
        let mut tick = tokio::time::interval(inner.options.lease / 3);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let renewals = inner
                .held
                .all()
                .into_iter()
                .map(|(claim, lost)| async move {
                    if inner.renew_claim(&claim).await == Some(false) {
                        lost.cancel();
                    }
                });
            futures::future::join_all(renewals).await;
        }
    }
}

impl Held {
    fn all(&self) -> Vec<(Claim, CancellationToken)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
}

impl Inner {
    fn hold(&self, claim: Claim) -> Lease {
        let lost = CancellationToken::new();
        self.held
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(claim.token.clone(), (claim.clone(), lost.clone()));
        Lease {
            claim,
            lost,
            held: Arc::clone(&self.held),
        }
    }

    async fn renew_claim(&self, claim: &Claim) -> Option<bool> {
        let mut call = self.renew.key(&claim.key);
        call.arg(claim.attempt)
            .arg(&claim.token)
            .arg(millis(self.options.lease))
            .arg(millis(self.options.window + KEEP));
        self.redis.call(&claim.hook, &call).await
    }

    async fn end(&self, claim: &Claim, end: End) -> Option<bool> {
        let (state, keep) = match end {
            End::Done => ("D".to_owned(), self.options.window),
            End::Parked(wait) => (format!("P{}", claim.attempt), wait + self.options.window),
            End::Released => (
                format!("P{}", claim.attempt.saturating_sub(1)),
                self.options.window,
            ),
        };
        let mut call = self.finish.key(&claim.key);
        call.arg(&claim.token).arg(state).arg(millis(keep));
        self.redis.call(&claim.hook, &call).await
    }
}

fn key(hook: &str, delivery: &DeliveryId) -> String {
    format!("hookline:{{{hook}}}:d:{delivery}")
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
