//! The audit log: `GET /audit/requests` lists it, newest first. Changes of entities record themselves, with the change;
//! what else is done, and what is refused, is recorded here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{StatusCode, Uri};
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use hookline_shared::subject::{ALL_WORKSPACES, AUDIT_ACTION, AUDIT_REFUSAL};

use super::paging::{NOT_ISSUED, size};
use super::response;
use super::selection::unknown;
use crate::access::{self, Caller, audit};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::{self, Store};

const DEFAULT_SIZE: usize = 100;
/// Refusals that wait to be stored.
const QUEUE: usize = 1_024;
/// Refusals of one address, and of all who are nobody, that are recorded in [`WINDOW`]: no stranger pushes others' records
/// out of the stream.
const OF_ADDRESS: u32 = 100;
const OF_STRANGERS: u32 = 200;
const WINDOW: Duration = Duration::from_secs(10);
/// Between tries to store a refusal.
const RETRY: Duration = Duration::from_secs(1);

/// `GET /audit/requests`, of a workspace or of all.
pub(super) async fn requests(
    store: &Store,
    workspace: &str,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let (mut before, mut count) = (u64::MAX - 1, DEFAULT_SIZE);
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "size" => count = size(&value)?,
            "offset" => {
                let offset = value.parse();
                before = offset.map_err(|_| ApiError::Offset(value.into_owned(), NOT_ISSUED))?;
            }
            _ => return Err(unknown(&name, "size, offset")),
        }
    }
    let records = store.records(workspace, before, count).await?;
    let data: Vec<Value> = records
        .iter()
        .filter_map(|record| serde_json::from_slice(&record.payload).ok())
        .collect();
    let oldest = records.last().filter(|_| records.len() == count);
    let mut body = json!({ "data": data, "next": null });
    if let Some(oldest) = oldest {
        let path = uri.path().trim_end_matches('/');
        let offset = oldest.sequence;
        body["next"] = json!(format!("{path}?offset={offset}&size={count}"));
        body["offset"] = json!(offset.to_string());
    }
    Ok(response::ok(&body))
}

/// Records what was done to something that is no entity.
pub(super) async fn done(store: &Store, caller: &Caller, status: StatusCode) {
    let record = audit::request(caller, status);
    let stored = store.record(&caller.workspace, AUDIT_ACTION, &record).await;
    if let Err(error) = stored {
        tracing::error!(%error, %record, "cannot store an audit record");
    }
}

/// Refusals on their way to the log. An address that is refused again and again is recorded only so often.
#[derive(Debug)]
pub(crate) struct Refusals {
    queue: mpsc::Sender<(String, Value)>,
    addresses: Mutex<Addresses>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Addresses {
    since: Instant,
    refused: HashMap<IpAddr, u32>,
    strangers: u32,
}

/// Stores them.
pub(crate) struct Recorder(mpsc::Receiver<(String, Value)>);

impl Refusals {
    pub(crate) fn new(metrics: Metrics) -> (Self, Recorder) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let addresses = Mutex::new(Addresses {
            since: Instant::now(),
            refused: HashMap::new(),
            strangers: 0,
        });
        let refusals = Self {
            queue,
            addresses,
            metrics,
        };
        (refusals, Recorder(waiting))
    }

    pub(super) fn note(&self, caller: &Caller, status: StatusCode, message: &str) {
        let mut record = audit::request(caller, status);
        record["refused"] = json!(message);
        // Whoever is nobody may have made up the workspace.
        let user = caller.user.as_ref();
        let of = user.map_or(ALL_WORKSPACES, |user| user.row.workspace.as_str());
        let is_stored =
            self.may_record(caller) && self.queue.try_send((of.to_owned(), record)).is_ok();
        if !is_stored {
            self.metrics.unrecorded();
        }
    }

    fn may_record(&self, caller: &Caller) -> bool {
        let mut addresses = self.addresses.lock();
        if addresses.since.elapsed() >= WINDOW {
            addresses.since = Instant::now();
            addresses.refused.clear();
            addresses.strangers = 0;
        }
        if caller.user.is_none() {
            addresses.strangers += 1;
            if addresses.strangers > OF_STRANGERS {
                return false;
            }
        }
        let place = access::place(caller.address);
        let refused = addresses.refused.entry(place).or_default();
        *refused += 1;
        *refused <= OF_ADDRESS
    }
}

impl Recorder {
    /// Never returns.
    pub(crate) async fn run(mut self, store: Arc<OnceLock<Arc<Store>>>) {
        while let Some((workspace, record)) = self.0.recv().await {
            let mut warned = false;
            while let Err(error) = try_record(&store, &workspace, &record).await {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(%error, "cannot store audit records of refusals yet");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
        // Nobody is left who could be refused.
        std::future::pending().await
    }
}

async fn try_record(
    store: &OnceLock<Arc<Store>>,
    workspace: &str,
    record: &Value,
) -> Result<(), store::Error> {
    let store = store.get().ok_or(store::Error::Unavailable(None))?;
    store.record(workspace, AUDIT_REFUSAL, record).await
}
