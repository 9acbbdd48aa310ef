//! Messages that were delivered before. Most of them were given back or come from a worker that was stopped, but one may
//! end every process that handles it.
//!
//! From its second delivery on, a count in Redis says how often a message was started without an end. Messages whose
//! workers may have died of them are started in small groups, then alone, and at last not at all, so that such a
//! message meets few workers and punishes few others. Without Redis nothing is suspected.

use std::time::Duration;

use redis::Script;
use tokio_util::task::TaskTracker;

use crate::nats::pulled_message::PulledMessage;
use crate::redis::client::RedisClient;
use crate::redis::keys::Key;
use crate::redis::script_call::{ScriptCall, millis};

/// Messages that are started together.
const GROUP: usize = 16;
/// A message that was started so often without an end is buried.
const CONVICTED: u32 = 4;
/// How long counts are kept after the last one was written.
const KEPT: Duration = Duration::from_secs(86_400);
/// Counts that one call reads or writes.
const MOST: usize = 512;

pub(crate) struct Suspects {
    redis: RedisClient,
    note: Script,
    counts: Script,
}

/// A message that was delivered before.
pub(crate) struct Suspect<M = PulledMessage> {
    message: M,
    /// Its field in the hash of counts.
    field: String,
    /// How often it was started, its first delivery included.
    started: u32,
}

/// What is to be done with messages that were delivered before.
pub(crate) struct Plan<M = PulledMessage> {
    pub(crate) convicted: Vec<M>,
    pub(crate) groups: Vec<Vec<Suspect<M>>>,
    /// Whether groups are handled one after the other.
    pub(crate) in_turn: bool,
}

/// Parts messages into those that are delivered for the first time, and the others.
pub(super) fn part(messages: Vec<PulledMessage>) -> (Vec<PulledMessage>, Vec<PulledMessage>) {
    messages
        .into_iter()
        .partition(|pulled| pulled.place.is_none_or(|place| place.deliveries <= 1))
}

impl Suspects {
    pub(crate) fn new(redis: RedisClient) -> Self {
        Self {
            redis,
            note: Script::new(include_str!("suspects.lua")),
            counts: Script::new(include_str!("suspect_counts.lua")),
        }
    }

    /// None: Redis is away.
    pub(super) async fn plan(
        &self,
        stream: &str,
        messages: Vec<PulledMessage>,
    ) -> Result<Plan, Vec<PulledMessage>> {
        let fields: Vec<_> = messages.iter().map(field).collect();
        let mut counts = Vec::with_capacity(fields.len());
        for fields in fields.chunks(MOST) {
            let mut call = ScriptCall::new(&self.counts, 1);
            call.key(Key::Started(stream)).arg(fields);
            let Some(some) = self.redis.call::<Vec<u32>>(stream, &call).await else {
                return Err(messages);
            };
            counts.extend(some);
        }
        let suspects = messages.into_iter().zip(fields).zip(counts);
        Ok(plan(suspects.map(|((message, field), count)| Suspect {
            message,
            field,
            // The first delivery is not noted.
            started: count.max(1),
        })))
    }

    /// Notes that a group is started. Returns its messages, and a tracker that ends with them.
    pub(super) async fn start(
        &self,
        stream: &str,
        group: Vec<Suspect>,
    ) -> (Vec<PulledMessage>, Started) {
        let counts: Vec<_> = group
            .iter()
            .map(|one| (one.field.as_str(), one.started + 1))
            .collect();
        self.note(stream, &counts).await;
        let tracker = TaskTracker::new();
        let (mut messages, mut fields) = (Vec::new(), Vec::new());
        for suspect in group {
            let mut pulled = suspect.message;
            pulled.track(tracker.token());
            messages.push(pulled);
            fields.push(suspect.field);
        }
        tracker.close();
        (messages, Started { tracker, fields })
    }

    /// Waits until a group has ended, whatever the end.
    pub(super) async fn end(&self, stream: &str, started: Started) {
        started.tracker.wait().await;
        let counts: Vec<_> = started
            .fields
            .iter()
            .map(|field| (field.as_str(), 0))
            .collect();
        self.note(stream, &counts).await;
    }

    async fn note(&self, stream: &str, counts: &[(&str, u32)]) {
        let mut call = ScriptCall::new(&self.note, 1);
        call.key(Key::Started(stream)).arg(millis(KEPT)).arg(counts);
        let _: Option<u32> = self.redis.call(stream, &call).await;
    }
}

/// Messages in flight, and their fields.
pub(super) struct Started {
    tracker: TaskTracker,
    fields: Vec<String>,
}

fn field(pulled: &PulledMessage) -> String {
    pulled.place.map_or_else(String::new, |place| {
        format!("{}-{}", place.stored.sequence, place.stored.time)
    })
}

fn plan<M>(suspects: impl Iterator<Item = Suspect<M>>) -> Plan<M> {
    let mut suspects: Vec<_> = suspects.collect();
    suspects.sort_by_key(|suspect| suspect.started);
    let (mut convicted, mut groups) = (Vec::new(), Vec::<Vec<_>>::new());
    let in_turn = suspects.iter().any(|suspect| suspect.started > 1);
    for suspect in suspects {
        if suspect.started >= CONVICTED {
            convicted.push(suspect.message);
            continue;
        }
        // Its worker died with it, or with another one of its group.
        let is_alone = suspect.started > 1;
        match groups.last_mut() {
            Some(group) if !is_alone && group.len() < GROUP => group.push(suspect),
            _ => groups.push(vec![suspect]),
        }
    }
    Plan {
        convicted,
        groups,
        in_turn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(started: &[u32]) -> Plan<usize> {
        let suspects = started
            .iter()
            .enumerate()
            .map(|(message, started)| Suspect {
                message,
                field: String::new(),
                started: *started,
            });
        plan(suspects)
    }

    #[test]
    fn messages_whose_workers_may_have_died_are_tried_alone_and_at_last_buried() {
        let plan = planned(&[2, 1, 4, 3, 1, 5]);
        assert_eq!(plan.convicted, [2, 5]);
        let groups: Vec<Vec<_>> = plan
            .groups
            .iter()
            .map(|group| group.iter().map(|one| one.message).collect())
            .collect();
        assert_eq!(groups, [vec![1, 4], vec![0], vec![3]]);
        assert!(plan.in_turn);
    }

    #[test]
    fn without_a_death_groups_are_handled_side_by_side() {
        let plan = planned(&[1; 2 * GROUP + 1]);
        assert!(!plan.in_turn && plan.convicted.is_empty());
        let sizes: Vec<_> = plan.groups.iter().map(Vec::len).collect();
        assert_eq!(sizes, [GROUP, GROUP, 1]);
    }
}
