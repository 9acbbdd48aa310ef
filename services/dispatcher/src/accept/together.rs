//! Claims and ends that deliveries of a hook share: one round trip, in which Redis looks at the hook's
//! circuit once.

use super::combine::Combiner;
use super::lease::Claim;
use super::{End, Inner, KEEP, PROBE_LEASES, key, millis};
use crate::gate::Gate;

/// Deliveries of one call. Redis does nothing else meanwhile.
const MOST: usize = 64;

/// Where a hook's deliveries meet.
#[derive(Debug)]
pub struct Together {
    claims: Combiner<Entry, (String, u64)>,
    ends: Combiner<(Entry, String, u64), bool>,
}

impl Default for Together {
    fn default() -> Self {
        Self {
            claims: Combiner::new(MOST),
            ends: Combiner::new(MOST),
        }
    }
}

/// A delivery, as the scripts need it.
#[derive(Debug)]
struct Entry {
    key: String,
    page: String,
    bit: String,
    attempt: u32,
    token: String,
}

impl Entry {
    fn of(claim: &Claim) -> Self {
        Self {
            key: claim.key(),
            page: claim.page(),
            bit: claim.offset(),
            attempt: claim.attempt,
            token: claim.token.clone(),
        }
    }
}

impl Inner {
    /// Claims a delivery of a hook that has neither limits nor marks.
    pub(super) async fn claim_with_others(
        &self,
        together: &Together,
        claim: &Claim,
        gate: &Gate,
    ) -> Option<(String, u64)> {
        let hook = claim.hook.as_str();
        let claims = async |entries: Vec<Entry>| {
            let mut call = self.scripts.claims.key(key(hook, "circuit"));
            call.key(key(hook, "probe"))
                .arg(millis(self.options.lease))
                .arg(millis(self.options.window + KEEP))
                .arg(gate.revision)
                .arg(millis(self.options.lease * PROBE_LEASES));
            for entry in entries {
                call.key(entry.key).key(entry.page);
                call.arg(entry.bit).arg(entry.attempt).arg(entry.token);
            }
            self.redis.call(hook, &call).await
        };
        together.claims.call(Entry::of(claim), claims).await
    }

    /// Ends a claim that is no probe and has no marks.
    pub(super) async fn end_with_others(
        &self,
        together: &Together,
        claim: &Claim,
        end: End,
    ) -> Option<bool> {
        let hook = claim.hook.as_str();
        let ends = async |entries: Vec<(Entry, String, u64)>| {
            let mut call = self.scripts.finishes.prepare_invoke();
            for (entry, state, keep) in entries {
                call.key(entry.key).key(entry.page);
                call.arg(entry.bit).arg(entry.attempt).arg(entry.token);
                call.arg(state).arg(keep);
            }
            self.redis.call(hook, &call).await
        };
        let (state, keep) = self.state(claim, end);
        let entry = (Entry::of(claim), state, millis(keep));
        together.ends.call(entry, ends).await
    }
}
