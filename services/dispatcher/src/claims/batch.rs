//! Claims, renewals and releases in batches: one round trip for many deliveries, in which Redis reads each bitmap
//! once.

use std::sync::Arc;

use futures::future::join_all;
use redis::Script;

use super::bitmap::Bits;
use super::calls::{Calls, KEEP, PROBE_LEASES};
use super::lease::{Claim, Group};
use super::scripts::{Answer, word};
use crate::metrics::RedisCall;
use crate::redis::keys::Key;
use crate::redis::script_call::{ScriptCall, millis};

/// Deliveries per call, during which Redis does nothing else.
pub(crate) const MOST: usize = 128;

/// Groups of claims about to be made.
#[derive(Default)]
pub(super) struct Groups(Vec<(Arc<Group>, Bits)>);

impl Groups {
    /// Returns an equal group that has no claim on the delivery yet, or adds this one.
    pub(super) fn join(&mut self, group: Group, offset: u8) -> Arc<Group> {
        let claimed = Bits::of(offset);
        // Neighbours in the stream mostly come together.
        let like = self
            .0
            .iter_mut()
            .rfind(|(other, set)| other.is_like(&group) && !set.meets(claimed));
        if let Some((group, set)) = like {
            set.add(claimed);
            return Arc::clone(group);
        }
        let group = Arc::new(group);
        self.0.push((Arc::clone(&group), claimed));
        group
    }
}

/// A group's claims within a call.
pub(super) struct Part<'a> {
    pub(super) group: &'a Arc<Group>,
    set: Bits,
    /// Each with its index among all claims.
    members: Vec<(Bits, usize)>,
}

/// Sorts claims into groups.
pub(super) fn parts<'a>(claims: impl Iterator<Item = (usize, &'a Claim)>) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (index, claim) in claims {
        let set = claim.set();
        let is_its = |part: &&mut Part<'_>| Arc::ptr_eq(part.group, &claim.group);
        if let Some(part) = parts.iter_mut().rfind(is_its) {
            part.set.add(set);
            part.members.push((set, index));
        } else {
            parts.push(Part {
                group: &claim.group,
                set,
                members: vec![(set, index)],
            });
        }
    }
    parts
}

/// Splits parts into calls: one call, or in a cluster one per hook.
pub(super) fn calls<'a, 'b>(
    parts: &'a mut [Part<'b>],
    is_cluster: bool,
) -> impl Iterator<Item = &'a [Part<'b>]> + use<'a, 'b> {
    if is_cluster {
        parts.sort_by(|one, other| one.group.hook.cmp(&other.group.hook));
    }
    parts.chunk_by(move |one, next| !is_cluster || one.group.hook == next.group.hook)
}

/// The claims to which a script's answer refers, by part number (from 1) and set.
fn members_of<'a>(
    parts: &'a [Part<'_>],
    number: usize,
    set: &[u8],
) -> Option<impl Iterator<Item = usize> + 'a> {
    let part = parts.get(number.checked_sub(1)?)?;
    let set = Bits::read(set)?;
    let members = part.members.iter().filter(move |(one, _)| one.meets(set));
    Some(members.map(|(_, index)| *index))
}

impl Calls {
    /// Claims at most [`MOST`] deliveries of hooks without rate limit and marks. Sets the answer of each if Redis
    /// answers.
    pub(super) async fn claim_together<'a>(
        &self,
        claims: impl Iterator<Item = (usize, &'a Claim)>,
        answers: &mut [Option<Answer>],
    ) {
        let mut parts = parts(claims);
        let calls = calls(&mut parts, self.redis.is_cluster());
        let calls = calls.map(|parts| self.claim_parts(parts));
        for answer in join_all(calls).await.into_iter().flatten().flatten() {
            let (index, word, number) = answer;
            answers[index] = Some(Answer(word, number, 0));
        }
    }

    /// Returns which claims are still this worker's; None where Redis did not answer. The others were taken over,
    /// or are done or parked.
    pub(super) async fn renew_together(&self, claims: &[Arc<Claim>]) -> Vec<Option<bool>> {
        let claims = claims.iter().map(|claim| &**claim).enumerate();
        let (lease, keep) = (self.options.lease, self.options.window + KEEP);
        let times = [millis(lease), millis(keep)];
        let renew = (&self.scripts.renew, RedisCall::Renew);
        self.run_on(parts(claims), renew, &times).await
    }

    /// Marks at most [`MOST`] deliveries as done that were no probes and have no marks. Returns the indices of
    /// those that are no longer this worker's.
    pub(super) async fn done_together<'a>(
        &self,
        claims: impl Iterator<Item = &'a Claim>,
    ) -> Vec<usize> {
        let times = [millis(self.options.window)];
        let done = (&self.scripts.done, RedisCall::Finish);
        let own = self.run_on(parts(claims.enumerate()), done, &times).await;
        let others = own.iter().enumerate();
        let others = others.filter(|(_, own)| **own == Some(false));
        others.map(|(index, _)| index).collect()
    }

    async fn claim_parts(&self, parts: &[Part<'_>]) -> Option<Vec<(usize, u8, u64)>> {
        let call = ScriptCall::new(&self.scripts.claim_batch, 3 * parts.len());
        let mut call = call.of_kind(RedisCall::Claim);
        for Part { group, .. } in parts {
            group.add_key_to(&mut call);
            call.key(Key::Circuit(&group.hook))
                .key(Key::Probe(&group.hook));
        }
        call.arg(millis(self.options.lease))
            .arg(millis(self.options.window + KEEP))
            .arg(millis(self.options.lease * PROBE_LEASES));
        for part in parts {
            call.arg(part.group.revision);
            part.add_to(&mut call);
        }
        let hook = &parts.first()?.group.hook;
        let others: Vec<(usize, u8, u64, Vec<u8>)> = self.redis.call(hook, &call).await?;
        let all = parts.iter().flat_map(|part| &part.members);
        let mut answers: Vec<_> = all.map(|(_, index)| (*index, word::ATTEMPT, 0)).collect();
        for (part, word, number, set) in others {
            answers.extend(members_of(parts, part, &set)?.map(|index| (index, word, number)));
        }
        Some(answers)
    }

    /// Runs a script that returns the claims that are not the caller's. Returns for each claim whether it is; None
    /// where Redis did not answer.
    async fn run_on(
        &self,
        mut parts: Vec<Part<'_>>,
        (script, kind): (&Script, RedisCall),
        times: &[u64],
    ) -> Vec<Option<bool>> {
        let claims = parts.iter().map(|part| part.members.len()).sum();
        let mut own = vec![None; claims];
        let calls = calls(&mut parts, self.redis.is_cluster());
        let calls = calls.map(async |parts| {
            let mut call = ScriptCall::new(script, parts.len()).of_kind(kind);
            for part in parts {
                part.group.add_key_to(&mut call);
            }
            for time in times {
                call.arg(time);
            }
            for part in parts {
                part.add_to(&mut call);
            }
            let hook = &parts.first()?.group.hook;
            let others: Vec<(usize, Vec<u8>)> = self.redis.call(hook, &call).await?;
            let others = others
                .iter()
                .filter_map(|(part, set)| members_of(parts, *part, set));
            let all = parts.iter().flat_map(|part| &part.members);
            let mut own: Vec<_> = all.map(|(_, index)| (*index, true)).collect();
            own.extend(others.flatten().map(|index| (index, false)));
            Some(own)
        });
        for (index, is_own) in join_all(calls).await.into_iter().flatten().flatten() {
            own[index] = Some(is_own);
        }
        own
    }
}

impl Part<'_> {
    fn add_to(&self, call: &mut ScriptCall<'_>) {
        self.group.add_to(call, self.set);
    }
}

impl Group {
    fn is_like(&self, other: &Self) -> bool {
        self.bitmap == other.bitmap && self.attempt == other.attempt && self.hook == other.hook
    }

    pub(super) fn add_key_to(&self, call: &mut ScriptCall<'_>) {
        call.key(self.bitmap.key(&self.hook));
    }

    /// Adds attempt, token and a set of deliveries.
    pub(super) fn add_to(&self, call: &mut ScriptCall<'_>, set: Bits) {
        call.arg(self.attempt)
            .arg(&self.token.bytes()[..])
            .arg(&set.bytes()[..]);
    }
}
