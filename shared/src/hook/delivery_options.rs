//! Delivery options of a hook: our extension to Kong's entity.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::signature::Algorithm;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeliveryOptions {
    /// Deliveries wait while this is set.
    #[serde(default)]
    pub paused: bool,
    /// Set when a dispatcher paused the hook.
    #[serde(default)]
    pub paused_reason: Option<String>,
    /// Concurrent attempts per dispatcher.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Seconds.
    #[serde(default)]
    pub timeout: Option<f64>,
    /// Seconds to wait after each failed attempt; after the last one the delivery is dead.
    #[serde(default)]
    pub retry: Option<Vec<f64>>,
    /// The hash in `X-Kong-Signature`.
    #[serde(default)]
    pub signature: Option<Algorithm>,
    /// Deliveries a second across all dispatchers.
    #[serde(default)]
    pub rate_limit: Option<f64>,
    /// Seconds after which a delivery is dead.
    #[serde(default)]
    pub max_age: Option<f64>,
    #[serde(default)]
    pub circuit_breaker: Option<CircuitBreaker>,
}

/// Missing values are the dispatcher's defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CircuitBreaker {
    /// Failures in a row on one dispatcher; 0 for never.
    #[serde(default)]
    pub failures: Option<u32>,
    /// Share of failed attempts in half a minute, from 0 to 1.
    #[serde(default)]
    pub failure_rate: Option<f64>,
    /// Seconds for which the circuit opens at first; doubled after each failed probe.
    #[serde(default)]
    pub open: Option<f64>,
}

impl CircuitBreaker {
    #[must_use]
    pub fn open(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.open?).ok()
    }
}

impl DeliveryOptions {
    #[must_use]
    pub fn retry_schedule(&self) -> Option<Vec<Duration>> {
        let steps = self.retry.as_ref()?;
        steps
            .iter()
            .map(|s| Duration::try_from_secs_f64(*s).ok())
            .collect()
    }

    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.max_age?).ok()
    }

    #[must_use]
    pub fn attempt_timeout(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.timeout?).ok()
    }
}
