//! Suppression by `snooze` and `on_change`.
//!
//! Events are about the same subject if the event's unique fields (see the registry) are equal or, for events
//! without such fields, if their entity is the same. `snooze` suppresses events about a subject for a while after
//! a delivery. `on_change` suppresses an event whose unique fields equal those of the last delivery or, without
//! such fields, whose entity is as it was then, except for `updated_at`.

use std::collections::HashMap;
use std::time::Duration;

use hookline_shared::event::Event;
use hookline_shared::hook::Hook;
use hookline_shared::{registry, signature::hex};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::refusal::Refusal;

/// How long `on_change` remembers the last value.
pub(crate) const KEEP_CHANGE: Duration = Duration::from_secs(7 * 86_400);
/// Marks per hook that a worker remembers.
const REMEMBERED: usize = 1_000;
/// Changes with every write of an entity.
const UPDATED_AT: &str = "updated_at";

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

    /// None if the hook uses neither `snooze` nor `on_change`.
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
            // The hook has one last value.
            (values.clone(), "unique".to_owned(), values)
        };
        Some(Self {
            snooze: snooze(hook).map(|time| (about, time)),
            change: (hook.on_change == Some(true)).then_some((watched, now)),
        })
    }
}

fn snooze(hook: &Hook) -> Option<Duration> {
    let seconds = hook.snooze.filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds.into()))
}

/// The event's entity, or its kind if it has none.
fn about(event: &Event) -> String {
    let entity = event
        .data()
        .get("entity")
        .and_then(|entity| entity.get("id"));
    let name = Value::from(event.name.as_str());
    let workspace = Value::from(event.workspace.as_str());
    digest(&[&workspace, &name, entity.unwrap_or(&Value::Null)])
}

/// Independent of the order of keys; numbers and booleans count as much as text.
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

/// One hook's marks, for the time that Redis is away.
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
    fn a_hook_without_snooze_and_on_change_has_no_marks() {
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
    fn unique_fields_are_compared_if_the_registry_has_them() {
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
    async fn snooze_suppresses_other_deliveries_about_the_subject() {
        let (mut memory, marks) = (Memory::default(), snoozed("a"));
        memory.remember("one", Some(&marks));
        assert_eq!(memory.check("one", Some(&marks)), Ok(()), "its own mark");
        assert_eq!(memory.check("two", Some(&marks)), Err(Refusal::Snoozed));
        assert_eq!(memory.check("two", Some(&snoozed("b"))), Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(memory.check("two", Some(&marks)), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn on_change_fires_if_the_value_differs_from_the_last() {
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
