//! `GET /scaling` on the status port: how much waits, how many dispatchers work on it, and how many are wanted.
//!
//! A gateway answers, since it lives when no dispatcher does. What it does not know it does not guess: an autoscaler
//! keeps its last number, or a fallback, when the answer is 503.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hookline_shared::queues::{Queues, Reading};
use hookline_shared::workers::{Sign, Workers};
use serde_json::{Map, Value, json};

const UNKNOWN: &str = "NATS has not said lately how much waits\n";

pub(crate) fn routes(queues: Queues, workers: Workers, per_worker: u64) -> Router {
    let answer = move || {
        let reading = queues.recent();
        let workers = workers.alive();
        async move {
            match reading {
                Some(reading) => answer(&reading, &workers, per_worker),
                None => (StatusCode::SERVICE_UNAVAILABLE, UNKNOWN).into_response(),
            }
        }
    };
    Router::new().route("/scaling", get(answer))
}

fn answer(reading: &Reading, workers: &[Sign], per_worker: u64) -> Response {
    let pending: u64 = reading.pending().map(|(_, count)| count).sum();
    let unacked: u64 = reading.unacked().map(|(_, count)| count).sum();
    let consumers: Map<String, Value> = reading
        .pending()
        .zip(reading.unacked())
        .map(|((name, pending), (_, unacked))| {
            let of_one = json!({ "pending": pending, "in_flight": unacked });
            (name.to_owned(), of_one)
        })
        .collect();
    let permits: u64 = workers.iter().map(|sign| u64::from(sign.permits)).sum();
    let body = json!({
        "wanted_workers": wanted(pending + unacked, per_worker),
        "workers": workers.len(),
        "pending": pending,
        "in_flight": unacked,
        "permits": permits,
        "consumers": consumers,
    });
    let json = (header::CONTENT_TYPE, "application/json; charset=utf-8");
    ([json], format!("{body}\n")).into_response()
}

/// One per `per_worker` messages, rounded up; parked deliveries count when they fall due.
fn wanted(messages: u64, per_worker: u64) -> u64 {
    messages.div_ceil(per_worker.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_wanted_for_each_thousand_messages_begun() {
        let cases = [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (25_000, 25)];
        for (messages, workers) in cases {
            assert_eq!(wanted(messages, 1_000), workers, "{messages}");
        }
    }
}
