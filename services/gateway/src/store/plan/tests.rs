use std::sync::Arc;

use super::*;
use crate::access::Caller;
use crate::schema::Input;
use crate::store::change::Place;
use crate::store::row;

fn place() -> Place {
    Place {
        workspace: "default".into(),
        events: "default".into(),
        parent: None,
    }
}

fn origin() -> Origin {
    Origin {
        node: "node-1".into(),
        pid: 7,
    }
}

fn entity(kind: &str, values: Value) -> Entity {
    let Value::Object(values) = values else {
        panic!("an object")
    };
    let schema = Schema::by_kind(kind).expect("a kind");
    schema
        .create(Input {
            values,
            form: false,
        })
        .expect("valid")
}

fn write(kind: &str, old: Option<Entity>, new: Option<Entity>) -> Write {
    let schema = Schema::by_kind(kind).expect("a kind");
    let old = old.map(|entity| {
        let body = encode(schema, &entity);
        let message = row::Message {
            sequence: 5,
            time: 9,
            headers: None,
            body: &body,
        };
        let id = entity["id"].as_str().expect("an id");
        Arc::new(Row::read(schema, "default", id, &message).expect("a row"))
    });
    Write {
        schema,
        place: place(),
        old,
        new,
        event: None,
        id_given: false,
        by: Arc::new(Caller::node("default")),
    }
}

fn plan(write: &Write) -> Plan {
    Plan::new(write, &origin(), 1 << 20).expect("a plan")
}

fn messages(plan: &Plan) -> Vec<Message> {
    plan.messages(&Expected {
        takes: vec![0; plan.takes.len()],
        ..Expected::default()
    })
}

/// Subjects without the bucket's prefix and without ids.
fn subjects(plan: &Plan) -> Vec<String> {
    let short = |message: &Message| {
        let subject = message
            .subject()
            .trim_start_matches("$KV.hookline.")
            .to_owned();
        for kind in ["outbox", "audit"] {
            let rest = subject.strip_prefix(kind);
            let rest = rest.and_then(|rest| rest[1..].split_once('.'));
            if let Some((_, rest)) = rest {
                return format!("{kind}.{rest}");
            }
        }
        subject.replace(&plan.id, "ID")
    };
    messages(plan).iter().map(short).collect()
}

#[test]
fn a_create_is_one_batch_of_entity_reservation_and_events() {
    let consumer = entity("consumers", json!({"username": "Ada Lovelace"}));
    assert_eq!(
        subjects(&plan(&write("consumers", None, Some(consumer)))),
        [
            "entity.default.consumers.ID",
            "unique.default.consumers.username.Ada=20Lovelace",
            "outbox.default.crud.consumers",
            "outbox.default.dao:crud.create",
            "audit.default.hookline:audit.write",
        ]
    );
}

#[test]
fn an_update_releases_the_old_name_and_takes_the_new_one() {
    let old = entity("consumers", json!({"username": "a", "custom_id": "c"}));
    let mut new = old.clone();
    new.insert("username".into(), json!("b"));
    let plan = plan(&write("consumers", Some(old), Some(new)));
    assert_eq!(
        subjects(&plan),
        [
            "entity.default.consumers.ID",
            "unique.default.consumers.username.b",
            "unique.default.consumers.username.a",
            "outbox.default.crud.consumers",
            "outbox.default.dao:crud.update",
            "audit.default.hookline:audit.write",
        ]
    );
    let text = format!("{:?}", messages(&plan));
    assert!(text.contains("old_entity"), "{text}");
    assert!(
        text.contains("5 9"),
        "the first sequence and time are carried on: {text}"
    );
}

#[test]
fn a_delete_is_an_event_of_the_deleted_row() {
    let old = entity("consumers", json!({"username": "a"}));
    let plan = plan(&write("consumers", Some(old), None));
    let text = format!("{:?}", messages(&plan));
    assert!(
        text.contains("DEL") && !text.contains("old_entity"),
        "{text}"
    );
    assert!(plan.takes.is_empty());
}

#[test]
fn a_new_webhook_moves_the_revision_after_the_entity_and_gets_its_ping() {
    let hook = json!({"source": "crud", "handler": "webhook",
                      "config": {"url": "http://x", "secret": "s3cret"}});
    let plan = plan(&write(
        "event_hooks",
        None,
        Some(entity("event_hooks", hook)),
    ));
    assert_eq!(
        subjects(&plan),
        [
            "entity.default.event_hooks.ID",
            "entity.=2A.event_hooks.revision",
            "outbox.default.crud.event_hooks",
            "outbox.default.dao:crud.create",
            "outbox.default.kong:event_hooks.ping",
            "audit.default.hookline:audit.write",
        ]
    );
    // The secret is in the entity, and nowhere else.
    let text = format!("{:?}", &messages(&plan)[1..]);
    assert!(
        !text.contains("s3cret") && text.contains(&plan.id),
        "{text}"
    );
}

#[test]
fn an_updated_webhook_gets_no_ping() {
    let hook = json!({"source": "crud", "handler": "webhook", "config": {"url": "http://x"}});
    let hook = entity("event_hooks", hook);
    let plan = plan(&write("event_hooks", Some(hook.clone()), Some(hook)));
    assert!(
        !subjects(&plan)
            .iter()
            .any(|subject| subject.ends_with("ping"))
    );
}

#[test]
fn a_new_child_is_guarded_by_its_service_and_its_workspace() {
    let id = Uuid::new_v4().to_string();
    let route = entity("routes", json!({"paths": ["/"], "service": {"id": id}}));
    let mut write = write("routes", None, Some(route));
    write.place.parent = Some("w".into());
    let plan = plan(&write);
    let parents: Vec<_> = plan
        .parents
        .iter()
        .map(|p| (p.schema.kind, p.id.as_str()))
        .collect();
    assert_eq!(parents, [("services", id.as_str()), ("workspaces", "w")]);
    let holds = ["s", "w"].map(|subject| Hold::Guard {
        subject: subject.into(),
        sequence: 3,
    });
    let messages = plan.messages(&Expected {
        holds: holds.into(),
        ..Expected::default()
    });
    let guards = format!("{messages:?}")
        .matches(header::EXPECTED_SUBJECT)
        .count();
    assert_eq!(guards, 2);
}

#[test]
fn an_unchanged_reference_needs_no_guard() {
    let id = Uuid::new_v4().to_string();
    let route = entity("routes", json!({"paths": ["/"], "service": {"id": id}}));
    assert!(
        plan(&write("routes", Some(route.clone()), Some(route)))
            .parents
            .is_empty()
    );
}

#[test]
fn an_event_that_is_too_large_is_refused_before_anything_is_written() {
    let consumer = entity(
        "consumers",
        json!({"username": "a", "tags": ["x".repeat(2_000)]}),
    );
    let result = Plan::new(&write("consumers", None, Some(consumer)), &origin(), 1_000);
    assert!(matches!(result, Err(Error::TooLarge)));
}

/// A node without the key marks it for deletion, and takes the mark away: its secrets stay.
#[test]
fn what_cannot_be_opened_is_written_as_it_was_stored() {
    let sealed = "A".repeat(60);
    let stored =
        json!({"id": "i", "created_at": 1, "cert": "c", "key": sealed, "sealed": "v1.gone.AAAA"});
    let body = stored.to_string();
    let message = row::Message {
        sequence: 5,
        time: 9,
        headers: None,
        body: body.as_bytes(),
    };
    let schema = Schema::by_kind("certificates").expect("a kind");
    let row = Row::read(schema, "default", "i", &message).expect("a row");
    assert!(row.lost.is_some() && row.entity["key"] != *sealed);
    let written = format!("{:?}", unmarked(&row));
    assert!(written.contains("v1.gone.AAAA"), "{written}");
}
