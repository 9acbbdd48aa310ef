//! Claims that this worker holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::marks::Marks;

/// A claim on a delivery. It is renewed until it is dropped.
#[derive(Debug)]
pub struct Lease {
    claim: Claim,
    lost: CancellationToken,
    held: Arc<Held>,
}

impl Lease {
    /// Resolves when another worker has taken the delivery over.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether the attempt probes an open circuit.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.claim.probe
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.lock().remove(&self.claim.token);
    }
}

/// What is claimed, and how it is told from another worker's claim.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) hook: String,
    pub(super) delivery: String,
    pub(super) attempt: u32,
    pub(super) token: String,
    pub(super) probe: bool,
    pub(super) marks: Option<Marks>,
}

/// All claims of this worker, by token.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<String, (Claim, CancellationToken)>>);

impl Held {
    pub(super) fn hold(self: &Arc<Self>, claim: Claim) -> Lease {
        let lost = CancellationToken::new();
        let entry = (claim.clone(), lost.clone());
        self.lock().insert(claim.token.clone(), entry);
        Lease {
            claim,
            lost,
            held: Arc::clone(self),
        }
    }

    pub(super) fn all(&self) -> Vec<(Claim, CancellationToken)> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Claim, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
