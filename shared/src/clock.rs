//! The time of day by NATS' clock. What leaves a process carries it (schedules, ages, log entries), so that a host
//! whose clock is wrong makes nothing early or late. Until the first measurement it is the host's.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::Client;
use async_nats::client::Request;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{connection, subject};

/// Between measurements.
const INTERVAL: Duration = Duration::from_secs(30);
/// The one whose answer is fastest counts.
const SAMPLES: usize = 5;
/// A slower answer says too little.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);
/// Clocks that are further off are reported.
pub const TOLERATED: Duration = Duration::from_secs(1);

/// Later times cannot be scheduled: NATS counts nanoseconds in 63 bits.
pub const MAX_AHEAD: Duration = Duration::from_secs(366 * 86_400);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Unix time at [`START`], in nanoseconds. Steps of the host's clock do not change it.
static BASE: LazyLock<AtomicI64> = LazyLock::new(|| AtomicI64::new(host_nanos() - since_start()));

#[must_use]
pub fn unix_millis() -> u64 {
    (unix_nanos() / 1_000_000) as u64
}

#[must_use]
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nanos() as u64)
}

#[must_use]
pub fn now_utc() -> OffsetDateTime {
    now().into()
}

/// The time after `delay`, as a schedule states it.
#[must_use]
pub fn after(delay: Duration) -> OffsetDateTime {
    now_utc() + delay.min(MAX_AHEAD)
}

/// How far the host's clock is ahead, in seconds; less than zero if it is behind.
#[must_use]
pub fn host_ahead() -> f64 {
    (host_nanos() - unix_nanos()) as f64 / 1e9
}

fn unix_nanos() -> i64 {
    BASE.load(Ordering::Relaxed) + since_start()
}

fn since_start() -> i64 {
    START.elapsed().as_nanos() as i64
}

fn host_nanos() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_nanos() as i64
}

/// Measures from time to time, and after each reconnect.
pub async fn follow(client: Client) {
    let mut connects = connection::connects();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            changed = connects.changed() => {
                if changed.is_err() {
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        }
        measure(&client).await;
    }
}

/// Sets this process's clock by the server that keeps parked deliveries, since it fires their schedules.
pub async fn measure(client: &Client) {
    let mut best: Option<(Duration, i64)> = None;
    for _ in 0..SAMPLES {
        let Some((round_trip, base)) = sample(client).await else {
            break;
        };
        if best.is_none_or(|(least, _)| round_trip < least) {
            best = Some((round_trip, base));
        }
    }
    if let Some((_, base)) = best {
        BASE.store(base, Ordering::Relaxed);
        report(host_ahead());
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    ts: &'a str,
}

/// Returns the round trip, and the server's time at [`START`].
async fn sample(client: &Client) -> Option<(Duration, i64)> {
    let asked = Instant::now();
    let info = format!("$JS.API.STREAM.INFO.{}", subject::DELIVERIES_STREAM);
    let request = Request::new().timeout(Some(MAX_ROUND_TRIP));
    let answer = client.send_request(info, request).await.ok()?;
    let round_trip = asked.elapsed();
    let answer: Answer<'_> = serde_json::from_slice(&answer.payload).ok()?;
    let server = OffsetDateTime::parse(answer.ts, &Rfc3339).ok()?;
    let server = i64::try_from(server.unix_timestamp_nanos()).ok()?;
    let middle = since_start() - round_trip.as_nanos() as i64 / 2;
    Some((round_trip, server - middle))
}

/// Once for each time that the host's clock goes wrong.
fn report(ahead: f64) {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    let is_wrong = ahead.abs() > TOLERATED.as_secs_f64();
    if REPORTED.swap(is_wrong, Ordering::Relaxed) == is_wrong {
        return;
    }
    if is_wrong {
        let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
        let seconds = ahead.abs().round();
        tracing::warn!(
            "this host's clock is {seconds} s {direction} that of NATS, which is used instead; set it, and keep it set with NTP"
        );
    } else {
        tracing::info!("this host's clock is that of NATS again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_a_measurement_the_time_is_the_hosts() {
        assert!(host_ahead().abs() < 1.0, "{}", host_ahead());
        let millis = now().duration_since(UNIX_EPOCH).expect("after 1970");
        assert!(unix_millis().abs_diff(millis.as_millis() as u64) < 1_000);
    }

    #[test]
    fn nothing_is_scheduled_for_a_time_that_nats_cannot_express() {
        let ahead = after(Duration::MAX) - now_utc();
        assert!(ahead <= MAX_AHEAD && ahead > MAX_AHEAD - Duration::from_secs(60));
    }
}
