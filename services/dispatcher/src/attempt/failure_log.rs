//! Log lines about a hook that fails: the first failure of a run at once, then a summary now and then, and the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookline_shared::hook::{HandlerConfig, Hook};
use parking_lot::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::handler::DeliveryError;
use crate::hooks::Prepared;

/// Between summaries.
const SUMMARY: Duration = Duration::from_secs(60);

/// Of one hook on this worker.
#[derive(Debug, Default)]
pub(crate) struct FailureLog {
    /// Spares a hook without failures the lock.
    fails: AtomicBool,
    run: Mutex<Option<Run>>,
}

#[derive(Debug)]
struct Run {
    failures: u64,
    /// Since the last line.
    unsaid: u64,
    said: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Say {
    First,
    Summary(u64),
    Nothing,
}

impl FailureLog {
    /// Notes a failed attempt that is made again after a while.
    pub(crate) fn failed(&self, hook: &Prepared, error: &DeliveryError, again: Duration) {
        let host = || host(&hook.hook).unwrap_or_default();
        let (status, next_try_s) = (error.status(), again.as_secs_f64().round());
        match self.count() {
            Say::First => tracing::warn!(
                hook = %hook.id, host = host(), status, %error, next_try_s,
                "an attempt failed, and is made again; further failures of this hook are summed up"
            ),
            Say::Summary(failures) => tracing::warn!(
                hook = %hook.id, host = host(), failures, status, %error,
                "attempts of this hook go on to fail"
            ),
            Say::Nothing => {}
        }
    }

    pub(crate) fn succeeded(&self, hook: &Prepared) {
        if !self.fails.load(Ordering::Relaxed) {
            return;
        }
        if let Some(Run { failures, .. }) = self.end() {
            tracing::info!(hook = %hook.id, failures, "the hook works again");
        }
    }

    fn count(&self) -> Say {
        let (mut run, now) = (self.run.lock(), Instant::now());
        self.fails.store(true, Ordering::Relaxed);
        let Some(run) = run.as_mut() else {
            *run = Some(Run {
                failures: 1,
                unsaid: 0,
                said: now,
            });
            return Say::First;
        };
        run.failures += 1;
        run.unsaid += 1;
        if now - run.said < SUMMARY {
            return Say::Nothing;
        }
        run.said = now;
        Say::Summary(std::mem::take(&mut run.unsaid))
    }

    fn end(&self) -> Option<Run> {
        let mut run = self.run.lock();
        self.fails.store(false, Ordering::Relaxed);
        run.take()
    }
}

/// Where the hook's requests go, without what may be secret.
fn host(hook: &Hook) -> Option<String> {
    let url = match &hook.handler {
        HandlerConfig::Webhook(config) => &config.url,
        HandlerConfig::WebhookCustom(config) => &config.url,
        HandlerConfig::Log(_) | HandlerConfig::Lambda(_) => return None,
    };
    Some(Url::parse(url).ok()?.host()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_is_said_and_the_others_are_summed_up() {
        let log = FailureLog::default();
        assert_eq!(log.count(), Say::First);
        assert!((0..100).all(|_| log.count() == Say::Nothing));
        tokio::time::advance(SUMMARY).await;
        assert_eq!(log.count(), Say::Summary(101));
        assert_eq!(log.count(), Say::Nothing);
        assert_eq!(log.end().map(|run| run.failures), Some(103));
        assert!(log.end().is_none());
        assert_eq!(log.count(), Say::First, "another run");
    }
}
