//! Suppression by `snooze` and `on_change`.
//!
//! Events are about the same subject if the event's unique fields (see the registry) are equal or, for events
//! without such fields, if their entity is the same. `snooze` suppresses events about a subject for a while after
//! a delivery was made. `on_change` suppresses an event whose unique fields equal those of the last delivery made or,
//! without such fields, whose entity is as it was then, except for `updated_at`. While a delivery is in flight that
//! may be made or fail, those that it would suppress wait.

use std::collections::HashMap;
use std::time::Duration;

use hookline_shared::event::Event;
use hookline_shared::hook::{Hook, MAX_TIMEOUT};
use hookline_shared::registry;
use tokio::time::Instant;

use super::digest::Digest;
use super::refusal::Refusal;
use hookline_shared::json_text;

/// How long `on_change` remembers the last value.
pub(crate) const KEEP_CHANGE: Duration = Duration::from_secs(7 * 86_400);
/// Marks per hook that a worker remembers.
const REMEMBERED: usize = 1_000;
/// How long a delivery counts as in flight after its next attempt is due, in case nobody comes back to it. Longer than any
/// attempt.
pub(crate) const IN_FLIGHT: Duration = Duration::from_secs(120);
const _: () = assert!(IN_FLIGHT.as_secs() > MAX_TIMEOUT.as_secs());
/// How long those that it would suppress wait before they ask again.
const AGAIN: Duration = Duration::from_secs(1);
/// Changes with every write of an entity.
const UPDATED_AT: &str = "updated_at";
const NULL: &[u8] = b"null";

/// The marks of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The subject, and for how long it is suppressed.
    pub snooze: Option<(String, Duration)>,
    /// The key that `on_change` watches, and its new value.
    pub change: Option<(String, String)>,
}

impl Marks {
    #[must_use]
    pub(crate) fn are_kept_for(hook: &Hook) -> bool {
        snooze(hook).is_some() || hook.on_change == Some(true)
    }

    /// None if the hook uses neither `snooze` nor `on_change`. Each incarnation of a hook has its own marks.
    #[must_use]
    pub(crate) fn new(hook: &Hook, incarnation: u64, event: &Event) -> Option<Self> {
        if !Self::are_kept_for(hook) {
            return None;
        }
        let data = fields(&event.raw);
        let field = |name: &str| data.get(name.as_bytes()).copied().unwrap_or(NULL);
        let unique = registry::unique(&event.source, &event.name);
        let (about, watched, now) = if unique.is_empty() {
            let about = about(event, field("entity"));
            let now = match data.get(&b"entity"[..]) {
                Some(entity) => Digest::default()
                    .json(presence(field("operation")))
                    .json_without(entity, UPDATED_AT)
                    .hex(),
                None => Digest::default().json_without(&event.raw, UPDATED_AT).hex(),
            };
            (about.clone(), about, now)
        } else {
            let values = unique
                .iter()
                .fold(Digest::default(), |digest, name| digest.json(field(name)));
            let values = values.hex();
            // The hook has one last value.
            (values.clone(), "unique".to_owned(), values)
        };
        let own = |key: &str| format!("{incarnation}.{key}");
        Some(Self {
            snooze: snooze(hook).map(|time| (own(&about), time)),
            change: (hook.on_change == Some(true)).then(|| (own(&watched), now)),
        })
    }
}

fn snooze(hook: &Hook) -> Option<Duration> {
    let seconds = hook.snooze.filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds.into()))
}

/// Of equal keys the last one counts.
fn fields(json: &[u8]) -> HashMap<json_text::Text<'_>, &[u8]> {
    let fields = json_text::fields(json).into_iter();
    fields.map(|field| (field.key, field.value)).collect()
}

/// The event's entity, or its kind if it has none.
fn about(event: &Event, entity: &[u8]) -> String {
    let entity = fields(entity);
    Digest::default()
        .text(&event.workspace)
        .text(&event.name)
        .json(entity.get(&b"id"[..]).copied().unwrap_or(NULL))
        .hex()
}

/// What an operation, as JSON, says about the entity: after `create` and `update` it is there.
fn presence(operation: &[u8]) -> &[u8] {
    match operation {
        b"\"create\"" | b"\"update\"" => NULL,
        other => other,
    }
}

/// One hook's marks, for the time that Redis is away.
#[derive(Debug, Default)]
pub(super) struct Memory {
    made: HashMap<String, Remembered>,
    in_flight: HashMap<String, Remembered>,
}

#[derive(Debug, Clone)]
struct Remembered {
    value: String,
    delivery: String,
    until: Instant,
}

impl Memory {
    pub(super) fn check(&self, delivery: &str, marks: Option<&Marks>) -> Result<(), Refusal> {
        let Some(marks) = marks else { return Ok(()) };
        let other = |marks: &HashMap<String, Remembered>, key: &str| {
            let mark = marks.get(key)?;
            let is_other = mark.until > Instant::now() && mark.delivery != delivery;
            is_other.then(|| mark.value.clone())
        };
        if let Some((about, _)) = &marks.snooze {
            let key = snooze_key(about);
            if other(&self.made, &key).is_some() {
                return Err(Refusal::Snoozed);
            }
            if other(&self.in_flight, &key).is_some() {
                return Err(Refusal::Behind(AGAIN));
            }
        }
        if let Some((watched, now)) = &marks.change {
            let key = change_key(watched);
            let is_as_made = other(&self.made, &key).is_some_and(|value| value == *now);
            let next = other(&self.in_flight, &key);
            if next.is_some_and(|next| is_as_made || next == *now) {
                return Err(Refusal::Behind(AGAIN));
            }
            if is_as_made {
                return Err(Refusal::Unchanged);
            }
        }
        Ok(())
    }

    pub(super) fn began(&mut self, delivery: &str, marks: &Marks) {
        let kept = marks.each(|_| IN_FLIGHT);
        remember(&mut self.in_flight, delivery, kept);
    }

    /// `in_flight`: for how long it goes on to be, if it is parked.
    pub(super) fn ended(&mut self, delivery: &str, marks: &Marks, in_flight: Option<Duration>) {
        for (key, _, _) in marks.each(|_| IN_FLIGHT) {
            let Some(mark) = self.in_flight.get_mut(&key) else {
                continue;
            };
            if mark.delivery != delivery {
                continue;
            }
            match in_flight {
                Some(time) => mark.until = Instant::now() + time,
                None => drop(self.in_flight.remove(&key)),
            }
        }
    }

    pub(super) fn made(&mut self, delivery: &str, marks: &Marks) {
        let kept = marks.each(|snooze| snooze.unwrap_or(KEEP_CHANGE));
        remember(&mut self.made, delivery, kept);
    }
}

impl Marks {
    /// Key, value and time of each mark; `time` gets the time of `snooze`, and `None` for `on_change`.
    fn each(&self, time: impl Fn(Option<Duration>) -> Duration) -> Vec<(String, String, Duration)> {
        let snooze = self
            .snooze
            .iter()
            .map(|(about, snooze)| (snooze_key(about), String::new(), time(Some(*snooze))));
        let change = self
            .change
            .iter()
            .map(|(watched, now)| (change_key(watched), now.clone(), time(None)));
        snooze.chain(change).collect()
    }
}

fn snooze_key(about: &str) -> String {
    format!("s:{about}")
}

fn change_key(watched: &str) -> String {
    format!("c:{watched}")
}

fn remember(
    marks: &mut HashMap<String, Remembered>,
    delivery: &str,
    kept: Vec<(String, String, Duration)>,
) {
    let now = Instant::now();
    if marks.len() >= REMEMBERED {
        marks.retain(|_, mark| mark.until > now);
    }
    if marks.len() >= REMEMBERED {
        // Better to report a change twice than to grow without bound.
        marks.clear();
    }
    for (key, value, time) in kept {
        let (delivery, until) = (delivery.to_owned(), now + time);
        marks.insert(
            key,
            Remembered {
                value,
                delivery,
                until,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hookline_shared::event::EventId;
    use hookline_shared::subject;
    use serde_json::{Value, json};

    use super::*;

    fn hook(snooze: Option<u32>, on_change: Option<bool>) -> Hook {
        Hook::from_json(
            &json!({"id": "h", "created_at": 1, "source": "s", "handler": "log",
            "config": {}, "snooze": snooze, "on_change": on_change}),
        )
        .expect("a hook")
    }

    fn event(source: &str, name: &str, data: &Value) -> Event {
        let subject = subject::event_subject("default", source, name);
        let body = Bytes::from(data.to_string());
        Event::parse_with_id(&subject, None, body, EventId::given("1")).expect("an event")
    }

    fn change(data: &Value) -> (String, String) {
        let marks = Marks::new(
            &hook(None, Some(true)),
            1,
            &event("crud", "consumers", data),
        );
        marks.expect("marks").change.expect("a change")
    }

    #[test]
    fn a_hook_without_snooze_and_on_change_has_no_marks() {
        let event = event("crud", "consumers", &json!({}));
        for hook in [hook(None, None), hook(Some(0), Some(false))] {
            assert_eq!(Marks::new(&hook, 1, &event), None);
        }
    }

    #[test]
    fn an_entity_is_compared_without_updated_at_and_with_numbers_and_booleans() {
        let old = change(&json!({"entity": {"id": 1, "a": true, "n": 1, "updated_at": 5}}));
        let same = change(
            &json!({"entity": {"n": 1, "a": true, "id": 1, "updated_at": 9},
            "old_entity": {"a": false}}),
        );
        assert_eq!(old, same);
        for entity in [
            json!({"id": 1, "a": false, "n": 1}),
            json!({"id": 1, "a": true, "n": 2}),
            json!({"id": 1, "a": true, "n": "1"}),
            json!({"id": 1, "a": true, "n": 1, "sub": {"updated_at": 1}}),
        ] {
            let (watched, now) = change(&json!({ "entity": entity }));
            assert_eq!(watched, old.0, "the same entity");
            assert_ne!(now, old.1, "{entity}");
        }
        assert_ne!(change(&json!({"entity": {"id": 2}})).0, old.0);
    }

    #[test]
    fn unique_fields_are_compared_if_the_registry_has_them() {
        let limited = |data: &Value| {
            let event = event("rate-limiting-advanced", "rate-limit-exceeded", data);
            Marks::new(&hook(Some(7), Some(true)), 1, &event).expect("marks")
        };
        let first = limited(&json!({"consumer": {}, "ip": "::1", "service": "a", "rate": 4}));
        let same = limited(&json!({"consumer": {}, "ip": "::1", "service": "a", "rate": 5}));
        assert_eq!(first, same);
        assert_eq!(
            first.snooze.as_ref().map(|(_, time)| *time),
            Some(Duration::from_secs(7))
        );
        let other = limited(&json!({"consumer": {}, "ip": "::2", "service": "a", "rate": 4}));
        let (watched, now) = other.change.expect("a change");
        let (first_watched, first_now) = first.change.expect("a change");
        assert_eq!(watched, first_watched);
        assert_ne!(now, first_now);
        assert_ne!(other.snooze, first.snooze);
    }

    #[test]
    fn a_deletion_is_a_change_and_so_is_a_new_creation() {
        let entity = json!({"id": 1, "a": true});
        let after = |operation| change(&json!({"operation": operation, "entity": entity}));
        assert_eq!(after("create"), after("update"));
        assert_ne!(after("update"), after("delete"));
        assert_eq!(after("update").0, after("delete").0);
        assert_ne!(after("enable"), after("disable"));
    }

    #[test]
    fn numbers_are_compared_by_their_text() {
        let of = |number: &str| {
            let body = format!(r#"{{"entity":{{"id":1,"n":{number}}}}}"#);
            let subject = subject::event_subject("default", "crud", "consumers");
            let id = EventId::given("1");
            let event = Event::parse_with_id(&subject, None, body.into(), id).expect("an event");
            Marks::new(&hook(None, Some(true)), 1, &event).expect("marks")
        };
        let long = "123456789012345678901";
        assert_eq!(of(long), of(long));
        for other in [
            "123456789012345678902",
            "1234567890123456789010",
            "1.0",
            "1",
        ] {
            assert_ne!(of(long), of(other), "{other}");
        }
    }

    fn snoozed(about: &str) -> Marks {
        Marks {
            snooze: Some((about.to_owned(), Duration::from_secs(10))),
            change: None,
        }
    }

    fn changed(value: &str) -> Marks {
        Marks {
            snooze: None,
            change: Some(("a".to_owned(), value.to_owned())),
        }
    }

    fn make(memory: &mut Memory, delivery: &str, marks: &Marks) -> Result<(), Refusal> {
        memory.check(delivery, Some(marks))?;
        memory.began(delivery, marks);
        memory.ended(delivery, marks, None);
        memory.made(delivery, marks);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn snooze_suppresses_other_deliveries_about_the_subject() {
        let (mut memory, marks) = (Memory::default(), snoozed("a"));
        assert_eq!(make(&mut memory, "one", &marks), Ok(()));
        assert_eq!(memory.check("one", Some(&marks)), Ok(()), "its own mark");
        assert_eq!(memory.check("two", Some(&marks)), Err(Refusal::Snoozed));
        assert_eq!(memory.check("two", Some(&snoozed("b"))), Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(memory.check("two", Some(&marks)), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_in_flight_holds_back_what_it_would_suppress_and_leaves_no_mark_if_it_fails()
    {
        for marks in [snoozed("a"), changed("x")] {
            let mut memory = Memory::default();
            memory.began("one", &marks);
            assert_eq!(
                memory.check("two", Some(&marks)),
                Err(Refusal::Behind(AGAIN))
            );
            assert_eq!(memory.check("one", Some(&marks)), Ok(()), "itself");
            memory.ended("one", &marks, Some(4 * IN_FLIGHT));
            tokio::time::advance(3 * IN_FLIGHT).await;
            assert_eq!(
                memory.check("two", Some(&marks)),
                Err(Refusal::Behind(AGAIN))
            );
            memory.ended("two", &marks, None);
            assert_eq!(
                memory.check("two", Some(&marks)),
                Err(Refusal::Behind(AGAIN))
            );
            memory.ended("one", &marks, None);
            assert_eq!(memory.check("two", Some(&marks)), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn on_change_fires_if_the_value_differs_from_the_last() {
        let mut memory = Memory::default();
        assert_eq!(make(&mut memory, "one", &changed("x")), Ok(()));
        assert_eq!(
            make(&mut memory, "two", &changed("x")),
            Err(Refusal::Unchanged)
        );
        assert_eq!(make(&mut memory, "three", &changed("y")), Ok(()));
        assert_eq!(make(&mut memory, "four", &changed("x")), Ok(()));
        // While another value is in flight, nobody knows the last one.
        memory.began("five", &changed("y"));
        assert_eq!(
            memory.check("six", Some(&changed("x"))),
            Err(Refusal::Behind(AGAIN))
        );
        assert_eq!(memory.check("six", Some(&changed("z"))), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let mut memory = Memory::default();
        for n in 0..3 * REMEMBERED {
            assert_eq!(make(&mut memory, "d", &snoozed(&n.to_string())), Ok(()));
            memory.began("d", &snoozed(&n.to_string()));
        }
        assert!(memory.made.len() <= REMEMBERED && memory.in_flight.len() <= REMEMBERED);
    }
}
