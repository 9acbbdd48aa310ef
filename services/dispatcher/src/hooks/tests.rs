//! Which hooks an event fires.

use std::time::Duration;

use bytes::Bytes;
use hookline_shared::event::{Event, EventId, Stored};
use serde_json::json;

use super::*;
use crate::handler::registry::Unusable;

const STORED: Stored = Stored {
    sequence: 1,
    time: 100,
};

/// Of a hook that is older than every event here.
const OLD: Created = Created {
    sequence: 1,
    time: 1,
    slack: 0,
};

const CIRCUIT: circuit_breaker::Settings = circuit_breaker::Settings {
    failures: 1,
    failure_rate: 1.0,
    open: Duration::from_secs(1),
};

fn hook(
    id: &str,
    source: &str,
    event: Option<&str>,
    workspace: &str,
    created: Created,
) -> Arc<Prepared> {
    let hook = Hook::from_json(&json!({"id": id, "created_at": 1, "source": source,
        "event": event, "handler": "log", "config": {}}))
    .expect("a hook");
    Arc::new(Prepared {
        id: hook.id.as_str().into(),
        event_name: event.map(Arc::from),
        workspace: workspace.to_owned(),
        handler: Box::new(Unusable { reason: "".into() }),
        policy: Policy::new(vec![Duration::ZERO]),
        max_age: Duration::from_secs(60),
        admission: Admission::new(1, CircuitBreaker::new(CIRCUIT), None, 1, 1),
        failures: FailureLog::default(),
        unusable: false,
        created,
        hook,
    })
}

fn event(workspace: &str, source: &str, name: &str, data: &'static str) -> Event {
    let subject = subject::event_subject(workspace, source, name);
    Event::parse_with_id(
        &subject,
        None,
        Bytes::from_static(data.as_bytes()),
        EventId::given("1"),
    )
    .expect("an event")
}

fn snapshot(hooks: &[Arc<Prepared>]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for hook in hooks {
        snapshot.insert(Arc::clone(hook));
    }
    snapshot
}

fn fired(hooks: &[Arc<Prepared>], event: &Event) -> Vec<String> {
    let mut ids: Vec<_> = snapshot(hooks)
        .matching(event, STORED)
        .iter()
        .map(|prepared| prepared.hook.id.clone())
        .collect();
    ids.sort();
    ids
}

#[test]
fn a_hook_matches_by_source_and_by_event_name_or_operation() {
    let hooks = [
        hook("all", "crud", None, "*", OLD),
        hook("name", "crud", Some("consumers"), "*", OLD),
        hook("operation", "crud", Some("consumers:create"), "*", OLD),
        hook("other", "crud", Some("consumers:delete"), "*", OLD),
        hook("source", "dao:crud", None, "*", OLD),
    ];
    let create = event("default", "crud", "consumers", r#"{"operation":"create"}"#);
    assert_eq!(fired(&hooks, &create), ["all", "name", "operation"]);
    let plain = event("default", "crud", "consumers", "{}");
    assert_eq!(fired(&hooks, &plain), ["all", "name"]);
    assert_eq!(
        fired(&hooks, &event("default", "crud", "routes", "{}")),
        ["all"]
    );
    assert!(fired(&hooks, &event("default", "balancer", "health", "{}")).is_empty());
}

#[test]
fn a_hook_hears_its_workspace_or_every_one() {
    let hooks = [
        hook("every", "crud", None, "*", OLD),
        hook("one", "crud", None, "team", OLD),
    ];
    assert_eq!(
        fired(&hooks, &event("team", "crud", "x", "{}")),
        ["every", "one"]
    );
    assert_eq!(
        fired(&hooks, &event("default", "crud", "x", "{}")),
        ["every"]
    );
}

#[test]
fn a_hook_does_not_hear_what_happened_before_it_was_made() {
    let before = hook(
        "before",
        "crud",
        None,
        "*",
        Created {
            sequence: 7,
            time: 99,
            slack: 0,
        },
    );
    let after = hook(
        "after",
        "crud",
        None,
        "*",
        Created {
            sequence: 9,
            time: 101,
            slack: 0,
        },
    );
    let hooks = [before, after];
    let mut published = event("default", "crud", "x", "{}");
    assert_eq!(fired(&hooks, &published), ["before"]);
    // Through the outbox, the bucket's own order decides.
    published.outbox_sequence = Some(8);
    assert_eq!(fired(&hooks, &published), ["before"]);
    published.outbox_sequence = Some(10);
    assert_eq!(fired(&hooks, &published), ["after", "before"]);
    published.outbox_sequence = Some(7);
    assert!(fired(&hooks, &published).is_empty());
}

#[test]
fn a_ping_fires_only_the_hook_it_is_addressed_to() {
    let hooks = [
        hook("one", "crud", None, "*", OLD),
        hook("two", "crud", None, "*", OLD),
        hook("eavesdropper", subject::PING_SOURCE, None, "*", OLD),
    ];
    let mut ping = event("default", subject::PING_SOURCE, subject::PING_EVENT, "{}");
    assert!(fired(&hooks, &ping).is_empty());
    ping.addressed_to = Some("two".to_owned());
    ping.outbox_sequence = Some(OLD.sequence + 1);
    assert_eq!(fired(&hooks, &ping), ["two"]);
    // Raised by a deleted hook with the same id.
    ping.outbox_sequence = Some(OLD.sequence);
    assert!(fired(&hooks, &ping).is_empty());
}

#[test]
fn a_hook_that_changed_is_no_longer_where_it_was() {
    let version = |source, event, unusable| {
        let mut hook = hook("one", source, event, "*", OLD);
        Arc::get_mut(&mut hook).expect("the only one").unusable = unusable;
        hook
    };
    let mut snapshot = Snapshot::default();
    let fires = |snapshot: &Snapshot| {
        let events = [("crud", "consumers"), ("crud", "admins"), ("other", "x")];
        events.map(|(source, name)| {
            let event = event("default", source, name, "{}");
            snapshot.matching(&event, STORED).len()
        })
    };
    let counts = |snapshot: &Snapshot| (snapshot.hooks(), snapshot.unusable());
    snapshot.insert(version("crud", Some("consumers"), false));
    assert_eq!((fires(&snapshot), counts(&snapshot)), ([1, 0, 0], (1, 0)));
    snapshot.insert(version("crud", None, true));
    assert_eq!((fires(&snapshot), counts(&snapshot)), ([1, 1, 0], (1, 1)));
    snapshot.insert(version("other", None, false));
    assert_eq!((fires(&snapshot), counts(&snapshot)), ([0, 0, 1], (1, 0)));
    snapshot.remove("one");
    snapshot.insert_unreadable("one".to_owned());
    assert_eq!((fires(&snapshot), counts(&snapshot)), ([0, 0, 0], (0, 0)));
    assert!(snapshot.knows("one"));
    snapshot.insert(version("crud", Some("admins"), true));
    assert_eq!((fires(&snapshot), counts(&snapshot)), ([0, 1, 0], (1, 1)));
    snapshot.remove("one");
    assert_eq!((fires(&snapshot), counts(&snapshot)), ([0, 0, 0], (0, 0)));
    assert!(!snapshot.knows("one"));
}

#[test]
fn a_source_and_an_event_are_not_taken_for_another_source() {
    let hooks = [hook("one", "a/b", None, "*", OLD)];
    assert_eq!(fired(&hooks, &event("default", "a/b", "c", "{}")), ["one"]);
    assert_eq!(fired(&hooks, &event("default", "a", "b", "{}")), [""; 0]);
}

#[test]
fn a_change_of_a_hook_leaves_older_snapshots_as_they_were() {
    // In all parts, with and without an event, and some of them of a source of their own.
    let hooks: Vec<_> = (0..1_000)
        .map(|n| {
            let (id, event) = (format!("hook-{n}"), format!("event-{}", n % 300));
            let source = if n < 990 { "crud" } else { "other" };
            let event = (n % 3 > 0).then_some(event.as_str());
            hook(&id, source, event, "*", OLD)
        })
        .collect();
    let mut now = snapshot(&hooks);
    now.insert_unreadable("strange".to_owned());
    let before = now.clone();
    for hook in &hooks[1..] {
        now.remove(&hook.id);
    }
    now.remove("strange");
    now.remove("never there");
    let all = |snapshot: &Snapshot| {
        let named = |n| event("default", "crud", &format!("event-{n}"), "{}");
        let fired = (0..300).map(|n| snapshot.matching(&named(n), STORED).len());
        let other = event("default", "other", "event-1", "{}");
        fired.sum::<usize>() + snapshot.matching(&other, STORED).len()
    };
    assert_eq!(before.hooks(), 1_000);
    assert!(before.knows("strange") && hooks.iter().all(|hook| before.get(&hook.id).is_some()));
    assert_eq!((now.hooks(), all(&now)), (1, 300));
    assert!(now.get("hook-0").is_some() && now.get("hook-1").is_none() && !now.knows("strange"));
    let any = hooks[..990].iter().filter(|hook| hook.event_name.is_none());
    let named = hooks[..990].iter().filter(|hook| hook.event_name.is_some());
    let other = hooks[990..].iter().filter(|hook| {
        hook.event_name
            .as_deref()
            .is_none_or(|event| event == "event-1")
    });
    assert_eq!(
        all(&before),
        any.count() * 300 + named.count() + other.count()
    );
}
