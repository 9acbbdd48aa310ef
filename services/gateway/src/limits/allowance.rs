//! A number of things that may be done at once, and is earned again with time.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(crate) fn full(burst: f64) -> Self {
        Self {
            left: burst,
            at: Instant::now(),
        }
    }

    /// What is left by now.
    pub(crate) fn refill(&mut self, burst: f64, per_second: f64) -> f64 {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * per_second;
        (self.left, self.at) = ((self.left + earned).min(burst), now);
        self.left
    }

    /// Takes one, if there is one; else says when there will be.
    pub(crate) fn take(&mut self, burst: f64, per_second: f64) -> Result<(), Duration> {
        let left = self.refill(burst, per_second);
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) / per_second));
        }
        self.left -= 1.0;
        Ok(())
    }

    /// Takes some at once, if there is one: what is missing is owed.
    pub(crate) fn take_at_once(
        &mut self,
        some: f64,
        burst: f64,
        per_second: f64,
    ) -> Result<(), Duration> {
        self.take(burst, per_second)?;
        self.left -= some - 1.0;
        Ok(())
    }

    /// Takes one, or what is left.
    pub(crate) fn spend(&mut self, burst: f64, per_second: f64) {
        self.left = (self.refill(burst, per_second) - 1.0).max(0.0);
    }
}
