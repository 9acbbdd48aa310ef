//! Script calls for a single delivery.

use std::time::Duration;

use redis::Script;

use super::lease::Claim;
use super::scripts::{Answer, Scripts};
use crate::admission::Admission;
use crate::admission::rate_limit::GRACE;
use crate::admission::refusal::Place;
use crate::admission::suppression::{IN_FLIGHT, KEEP_CHANGE};
use crate::metrics::RedisCall;
use crate::redis::client::RedisClient;
use crate::redis::keys::Key;
use crate::redis::script_call::{ScriptCall, millis};

/// How long after the dedupe window the state of a claimed delivery is kept.
pub(super) const KEEP: Duration = Duration::from_secs(3_600);
/// Leases after which another probe may be made.
pub(super) const PROBE_LEASES: u32 = 3;

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// How long a delivered delivery is remembered.
    pub window: Duration,
    /// Deliveries wait while Redis is away.
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Delivered.
    Done,
    /// Parked for that long.
    Parked(Duration),
    Buried,
    /// The attempt was not made, or not settled.
    GivenBack,
}

impl Release {
    /// For how long the delivery is in flight after it.
    pub(super) fn in_flight(self) -> Option<Duration> {
        match self {
            Self::Parked(wait) => Some(wait + IN_FLIGHT),
            Self::Done | Self::Buried | Self::GivenBack => None,
        }
    }
}

pub(super) struct Calls {
    pub(super) redis: RedisClient,
    pub(super) scripts: Scripts,
    pub(super) options: Options,
}

impl Calls {
    pub(super) async fn claim(
        &self,
        admission: &Admission,
        claim: &Claim,
        place: Option<Place>,
    ) -> Option<Answer> {
        let hook = &*claim.group.hook;
        let rate = admission.rate;
        let marks = claim.marks.as_ref();
        let snooze = marks.and_then(|marks| marks.snooze.as_ref());
        let change = marks.and_then(|marks| marks.change.as_ref());
        let about = snooze.map_or("", |(about, _)| about);
        let watched = change.map_or("", |(watched, _)| watched);
        let mut call = on(&self.scripts.claim, claim, 7).of_kind(RedisCall::Claim);
        call.key(Key::Circuit(hook))
            .key(Key::Probe(hook))
            .key(Key::Rate(hook))
            .key(Key::Snooze(hook, about))
            .key(Key::Change(hook, watched))
            .key(Key::SnoozeNow(hook, about))
            .key(Key::ChangeNow(hook, watched));
        claim.group.add_to(&mut call, claim.set());
        call.arg(millis(self.options.lease))
            .arg(millis(self.options.window + KEEP))
            .arg(admission.revision)
            .arg(millis(self.options.lease * PROBE_LEASES))
            .arg(claim.delivery.as_str())
            .arg(rate.map_or(0, |rate| rate.interval.as_micros() as u64))
            .arg(rate.map_or(0, |rate| rate.tolerance().as_micros() as u64))
            .arg(u8::from(snooze.is_some()))
            .arg(change.map_or("", |(_, now)| now))
            .arg(millis(IN_FLIGHT))
            .arg(place.map_or(0, |place| place.0))
            .arg(millis(GRACE));
        self.redis.call(hook, &call).await
    }

    pub(super) async fn release(&self, claim: &Claim, release: Release) -> Option<bool> {
        let window = self.options.window;
        let (state, keep) = match release {
            Release::Done => ("done", window),
            Release::Parked(wait) => ("parked", wait + window),
            Release::Buried => ("parked", window),
            Release::GivenBack => ("released", window),
        };
        let (hook, marks) = (&*claim.group.hook, claim.marks.as_ref());
        let snooze = marks.and_then(|marks| marks.snooze.as_ref());
        let change = marks.and_then(|marks| marks.change.as_ref());
        let about = snooze.map_or("", |(about, _)| about);
        let watched = change.map_or("", |(watched, _)| watched);
        let is_made = release == Release::Done;
        let mut call = on(&self.scripts.finish, claim, 7).of_kind(RedisCall::Finish);
        call.key(Key::Circuit(hook))
            .key(Key::Probe(hook))
            .key(Key::Snooze(hook, about))
            .key(Key::Change(hook, watched))
            .key(Key::SnoozeNow(hook, about))
            .key(Key::ChangeNow(hook, watched))
            .key(Key::Slot(hook));
        claim.group.add_to(&mut call, claim.set());
        call.arg(state)
            .arg(millis(keep))
            .arg(match release {
                Release::Done if claim.probe => "closes",
                Release::GivenBack if claim.probe => "ends",
                Release::Done | Release::Parked(_) | Release::Buried | Release::GivenBack => "",
            })
            .arg(claim.delivery.as_str())
            .arg(
                snooze
                    .filter(|_| is_made)
                    .map_or(0, |(_, time)| millis(*time)),
            )
            .arg(change.filter(|_| is_made).map_or("", |(_, now)| now))
            .arg(millis(KEEP_CHANGE))
            .arg(release.in_flight().map_or(0, millis));
        self.redis.call(hook, &call).await
    }
}

/// A call on a claim's delivery, with `keys` more keys.
fn on<'a>(script: &'a Script, claim: &Claim, keys: usize) -> ScriptCall<'a> {
    let mut call = ScriptCall::new(script, 1 + keys);
    claim.group.add_key_to(&mut call);
    call
}
