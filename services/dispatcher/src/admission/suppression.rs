//! What `snooze` and `on_change` compare.
//!
//! Two events are *about the same* if the fields that the registry calls unique are equal, or else
//! the entity that they tell of. `snooze` is silent for a while after an event about the same.
//! `on_change` fires if the unique fields differ from the last ones that the hook saw, or else if
//! the entity differs from how the hook saw it last, `updated_at` aside. Numbers and booleans count
//! as much as text.

use std::collections::HashMap;
use std::time::Duration;

use hookline_shared::event::Event;
use hookline_shared::hook::Hook;
use hookline_shared::{registry, signature::hex};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::refusal::Refusal;

/// How long the value that `on_change` saw last is kept.
pub(crate) const KEEP_CHANGE: Duration = Duration::from_secs(7 * 86_400);
/// Marks of one hook that a worker remembers.
const REMEMBERED: usize = 1_000;
/// Changes with every write of an entity.
const UPDATED_AT: &str = "updated_at";

/// The marks of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    /// What `snooze` is silent about, and for how long.
    pub snooze: Option<(String, Duration)>,
    /// What `on_change` watches, and what it is now.
    pub change: Option<(String, String)>,
}

impl Marks {
    /// Whether a hook asks for any.
    #[must_use]
    pub(crate) fn are_kept_for(hook: &Hook) -> bool {
        snooze(hook).is_some() || hook.on_change == Some(true)
    }

    /// The marks of an event for a hook; nothing if the hook asks for none.
    #[must_use]
    pub(crate) fn new(hook: &Hook, event: &Event) -> Option<Self> {
        if !Self::are_kept_for(hook) {
            return None;
        }
        let unique = registry::unique(&event.source, &event.name);
        let values: Vec<&Value> = unique
            .iter()
            .map(|field| event.data().get(*field).unwrap_or(&Value::Null))
            .collect();
        let (about, watched, now) = if unique.is_empty() {
            let about = about(event);
            let now = match event.data().get("entity") {
                Some(entity) => digest(&[entity]),
                None => digest(&[&Value::Object(event.data().clone())]),
            };
            (about.clone(), about, now)
        } else {
            let values = digest(&values);
            // One last value for the hook, whatever it was.
            (values.clone(), "unique".to_owned(), values)
        };
        Some(Self {
            snooze: snooze(hook).map(|time| (about, time)),
            change: (hook.on_change == Some(true)).then_some((watched, now)),
        })
    }
}

/// How long a hook is silent after a delivery, if it asks for that.
fn snooze(hook: &Hook) -> Option<Duration> {
    let seconds = hook.snooze.filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds.into()))
}

/// The entity that an event tells of, or the kind of event where it tells of none.
fn about(event: &Event) -> String {
    let entity = event
        .data()
        .get("entity")
        .and_then(|entity| entity.get("id"));
    let name = Value::from(event.name.as_str());
    let workspace = Value::from(event.workspace.as_str());
    digest(&[&workspace, &name, entity.unwrap_or(&Value::Null)])
}

/// A hash that does not depend on the order of keys.
fn digest(values: &[&Value]) -> String {
    let mut hash = Sha256::new();
    for value in values {
        update(&mut hash, value, true);
    }
    hex(&hash.finalize()[..16])
}

fn update(hash: &mut Sha256, value: &Value, top: bool) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            hash.update(b"{");
            for (name, value) in fields {
                if !(top && name == UPDATED_AT) {
                    text(hash, name);
                    update(hash, value, false);
                }
            }
            hash.update(b"}");
        }
        Value::Array(values) => {
            hash.update(b"[");
            for value in values {
                update(hash, value, false);
            }
            hash.update(b"]");
        }
        Value::String(string) => {
            hash.update(b"s");
            text(hash, string);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            hash.update(b"v");
            text(hash, &value.to_string());
        }
    }
}

fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

/// The marks of one hook that this worker remembers, for the time that Redis is away.
#[derive(Debug, Default)]
pub(super) struct Memory {
    marks: HashMap<String, Remembered>,
}

#[derive(Debug)]
struct Remembered {
    value: String,
    delivery: String,
    until: Instant,
}

impl Memory {
    pub(super) fn check(&self, delivery: &str, marks: Option<&Marks>) -> Result<(), Refusal> {
        let Some(marks) = marks else { return Ok(()) };
        let other = |key: &str| {
            let mark = self.marks.get(key)?;
            (mark.until > Instant::now() && mark.delivery != delivery).then_some(mark)
        };
        if let Some((about, _)) = &marks.snooze
            && other(&format!("s:{about}")).is_some()
        {
            return Err(Refusal::Snoozed);
        }
        if let Some((watched, now)) = &marks.change
            && other(&format!("c:{watched}")).is_some_and(|mark| mark.value == *now)
        {
            return Err(Refusal::Unchanged);
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, delivery: &str, marks: Option<&Marks>) {
        let Some(marks) = marks else { return };
        let now = Instant::now();
        if self.marks.len() >= REMEMBERED {
            self.marks.retain(|_, mark| mark.until > now);
        }
        if self.marks.len() >= REMEMBERED {
            // Better to report a change twice than to grow without bound.
            self.marks.clear();
        }
        let mut keep = |key: String, value: &str, time| {
            let mark = Remembered {
                value: value.to_owned(),
                delivery: delivery.to_owned(),
                until: now + time,
            };
            self.marks.insert(key, mark);
        };
        if let Some((about, time)) = &marks.snooze {
            keep(format!("s:{about}"), "", *time);
        }
        if let Some((watched, value)) = &marks.change {
            keep(format!("c:{watched}"), value, KEEP_CHANGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hookline_shared::event::EventId;
    use hookline_shared::subject;
    use serde_json::json;

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
        let marks = Marks::new(&hook(None, Some(true)), &event("crud", "consumers", data));
        marks.expect("marks").change.expect("a change")
    }

    #[test]
    fn a_hook_that_asks_for_nothing_has_no_marks() {
        let event = event("crud", "consumers", &json!({}));
        for hook in [hook(None, None), hook(Some(0), Some(false))] {
            assert_eq!(Marks::new(&hook, &event), None);
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
    fn unique_fields_decide_where_the_registry_has_them() {
        let limited = |data: &Value| {
            let event = event("rate-limiting-advanced", "rate-limit-exceeded", data);
            Marks::new(&hook(Some(7), Some(true)), &event).expect("marks")
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

    fn snoozed(about: &str) -> Marks {
        Marks {
            snooze: Some((about.to_owned(), Duration::from_secs(10))),
            change: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn snooze_is_silent_about_the_same_but_not_about_its_own() {
        let (mut memory, marks) = (Memory::default(), snoozed("a"));
        memory.remember("one", Some(&marks));
        assert_eq!(memory.check("one", Some(&marks)), Ok(()), "its own mark");
        assert_eq!(memory.check("two", Some(&marks)), Err(Refusal::Snoozed));
        assert_eq!(memory.check("two", Some(&snoozed("b"))), Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(memory.check("two", Some(&marks)), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn on_change_fires_when_the_value_is_another() {
        let mut memory = Memory::default();
        let mut pass = |delivery, value: &str| {
            let marks = Marks {
                snooze: None,
                change: Some(("a".to_owned(), value.to_owned())),
            };
            memory.check(delivery, Some(&marks))?;
            memory.remember(delivery, Some(&marks));
            Ok(())
        };
        assert_eq!(pass("one", "x"), Ok(()));
        assert_eq!(pass("two", "x"), Err(Refusal::Unchanged));
        assert_eq!(pass("three", "y"), Ok(()));
        assert_eq!(pass("four", "x"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let mut memory = Memory::default();
        for n in 0..3 * REMEMBERED {
            memory.remember("d", Some(&snoozed(&n.to_string())));
        }
        assert!(memory.marks.len() <= REMEMBERED);
    }
}
