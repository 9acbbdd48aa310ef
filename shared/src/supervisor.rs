//! The background loops of a process, which should run until shutdown. One that ends early or panics is logged
//! with its name, fails `/healthz`, and stops the process, so that an orchestrator restarts it.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio::task::JoinSet;

use crate::status::Readiness;

/// Dropping it stops the loops.
#[derive(Debug)]
pub struct Supervisor {
    loops: JoinSet<Stopped>,
    ended: Vec<&'static str>,
    health: Readiness,
}

/// A loop that stopped.
#[derive(Debug, thiserror::Error)]
#[error("the background loop {name:?} {how}")]
pub struct Stopped {
    name: &'static str,
    how: String,
    panicked: bool,
}

impl Stopped {
    fn log(&self) {
        tracing::error!(background_loop = self.name, "{self}, stopping the process");
    }
}

impl Supervisor {
    /// `/healthz` answers from `health`.
    #[must_use]
    pub fn new(health: Readiness) -> Self {
        Self {
            loops: JoinSet::new(),
            ended: Vec::new(),
            health,
        }
    }

    /// From which `/healthz` answers.
    #[must_use]
    pub fn health(&self) -> Readiness {
        self.health.clone()
    }

    pub fn spawn<T>(&mut self, name: &'static str, work: impl Future<Output = T> + Send + 'static) {
        self.loops.spawn(async move {
            let ended = AssertUnwindSafe(work.map(drop)).catch_unwind().await;
            let how = match &ended {
                Ok(()) => "ended".to_owned(),
                Err(panic) => format!("panicked: {}", message(&**panic)),
            };
            Stopped {
                name,
                how,
                panicked: ended.is_err(),
            }
        });
    }

    /// Waits until a loop stops, and never returns if there are no loops.
    pub async fn stopped(&mut self) -> Stopped {
        loop {
            match self.loops.join_next().await {
                Some(Ok(stopped)) => {
                    stopped.log();
                    self.ended.push(stopped.name);
                    self.health.missing(stopped.name, &stopped.how);
                    return stopped;
                }
                // Aborted, which happens only when the supervisor is dropped.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for loops that end by themselves at shutdown, in any order.
    pub async fn finish(&mut self, names: &[&str]) {
        while !names.iter().all(|name| self.ended.contains(name)) {
            match self.loops.join_next().await {
                Some(Ok(stopped)) => {
                    if stopped.panicked || !names.contains(&stopped.name) {
                        stopped.log();
                    }
                    self.ended.push(stopped.name);
                }
                Some(Err(_)) => {}
                None => return,
            }
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_panics_or_ends_is_named_and_makes_the_process_unhealthy() {
        let cases = [
            (true, "the background loop \"sick\" panicked: broken"),
            (false, "the background loop \"sick\" ended"),
        ];
        for (panics, text) in cases {
            let health = Readiness::default();
            let mut supervisor = Supervisor::new(health.clone());
            supervisor.spawn("well", std::future::pending::<()>());
            assert!(supervisor.stopped().now_or_never().is_none());
            assert!(health.is_ready());
            supervisor.spawn("sick", async move { assert!(!panics, "broken") });
            assert_eq!(supervisor.stopped().await.to_string(), text);
            assert!(!health.is_ready());
        }
    }

    #[tokio::test]
    async fn loops_that_end_at_shutdown_are_waited_for_in_any_order() {
        let mut supervisor = Supervisor::new(Readiness::default());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        supervisor.spawn("others", std::future::pending::<()>());
        supervisor.spawn("late", ended);
        supervisor.spawn("early", std::future::ready(()));
        let mut all = Box::pin(supervisor.finish(&["late", "early"]));
        assert!(all.as_mut().now_or_never().is_none(), "one still runs");
        end.send(()).expect("it waits");
        all.await;
        supervisor.finish(&["early"]).await;
    }
}
