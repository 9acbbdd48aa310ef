use super::*;
use serde_json::json;

fn schema(kind: &str) -> &'static Schema {
    Schema::by_kind(kind).expect("a kind")
}

fn json_input(values: Value) -> Input {
    let Value::Object(values) = values else {
        panic!("an object")
    };
    Input {
        values,
        form: false,
    }
}

fn form_input(values: Value) -> Input {
    Input {
        form: true,
        ..json_input(values)
    }
}

fn create(kind: &str, values: Value) -> Result<Entity, String> {
    schema(kind)
        .create(json_input(values))
        .map_err(|violations| violations.message())
}

fn hook(config: Value) -> Entity {
    create(
        "event_hooks",
        json!({"source": "crud", "event": "consumers", "handler": "webhook", "config": config}),
    )
    .expect("a hook")
}

#[test]
fn a_consumer_is_as_in_the_documents_example() {
    let mut consumer = create("consumers", json!({"username": "Ada Lovelace"})).expect("valid");
    for set in ["id", "created_at", "updated_at"] {
        assert!(consumer.remove(set).is_some(), "{set}");
    }
    assert_eq!(
        Value::Object(consumer),
        json!({"type": 0, "username": "Ada Lovelace"})
    );
}

#[test]
fn a_consumer_needs_a_name() {
    assert_eq!(
        create("consumers", json!({"username": null})).unwrap_err(),
        "schema violation (at least one of these fields must be non-empty: 'custom_id', \
         'username')"
    );
}

#[test]
fn unknown_fields_wrong_types_and_missing_fields_are_told_together() {
    assert_eq!(
        create(
            "services",
            json!({"foo": 1, "port": "x", "retries": 1.5, "name": ""})
        )
        .unwrap_err(),
        "5 schema violations (foo: unknown field; host: required field missing; \
         name: length must be at least 1; port: expected an integer; \
         retries: expected an integer)"
    );
}

#[test]
fn the_handler_is_checked_first_and_alone() {
    let message = |values| create("event_hooks", values).unwrap_err();
    assert_eq!(
        message(json!({"foo": 1})),
        "schema violation (handler: required field missing)"
    );
    assert_eq!(
        message(json!({"handler": "smoke", "foo": 1})),
        "schema violation (handler: unknown type: smoke)"
    );
    assert_eq!(
        message(json!({"handler": "webhook"})),
        "2 schema violations (config.url: required field missing; \
         source: required field missing)"
    );
}

#[test]
fn a_webhooks_config_gets_its_defaults() {
    assert_eq!(
        hook(json!({"url": "http://x/"}))["config"],
        json!({"url": "http://x/", "headers": {}, "ssl_verify": true})
    );
    let log = create("event_hooks", json!({"source": "crud", "handler": "log"}));
    assert_eq!(log.expect("valid")["config"], json!({}));
}

#[test]
fn what_cannot_be_prepared_is_a_schema_violation() {
    let hook = json!({"source": "crud", "handler": "lambda",
                      "config": {"functions": ["return function ("]}});
    let message = create("event_hooks", hook).unwrap_err();
    assert!(message.contains("config.functions"), "{message}");
}

#[test]
fn patch_merges_records_and_replaces_maps() {
    let old = hook(json!({"url": "http://x/", "headers": {"a": "1", "b": "2"}}));
    let schema = schema("event_hooks");
    let patch = json!({"config": {"headers": {"c": "3"}}, "snooze": 5});
    let new = schema.update(&old, json_input(patch)).expect("valid");
    assert_eq!(
        new["config"],
        json!({"url": "http://x/", "headers": {"c": "3"}, "ssl_verify": true})
    );
    assert_eq!((&new["snooze"], &new["id"]), (&json!(5), &old["id"]));
}

#[test]
fn a_patched_handler_takes_no_config_over() {
    let old = hook(json!({"url": "http://x/"}));
    let patch = json_input(json!({"handler": "log"}));
    let new = schema("event_hooks").update(&old, patch).expect("valid");
    assert_eq!(new["config"], json!({}));
}

#[test]
fn put_replaces_all_but_id_and_time_of_creation() {
    let mut old = create("consumers", json!({"username": "a", "custom_id": "c"})).expect("ok");
    old.insert("created_at".into(), json!(7));
    let put = json_input(json!({"username": "b"}));
    let mut new = schema("consumers").replace(&old, put).expect("valid");
    assert!(new.remove("updated_at").is_some());
    assert_eq!(
        Value::Object(new),
        json!({"username": "b", "id": old["id"], "created_at": 7, "type": 0})
    );
}

#[test]
fn an_id_cannot_be_changed() {
    let old = create("consumers", json!({"username": "a"})).expect("valid");
    let patch = json_input(json!({"id": Uuid::new_v4().to_string()}));
    assert_eq!(
        schema("consumers")
            .update(&old, patch)
            .unwrap_err()
            .message(),
        "schema violation (id: immutable field cannot be updated)"
    );
}

#[test]
fn a_redacted_secret_keeps_the_stored_one() {
    let old = hook(json!({"url": "http://x/", "secret": "s3cret"}));
    let config = json!({"url": "http://y/", "secret": REDACTED});
    let put = json!({"source": "crud", "handler": "webhook", "config": config});
    let new = schema("event_hooks")
        .replace(&old, json_input(put.clone()))
        .expect("valid");
    assert_eq!(new["config"]["secret"], "s3cret");
    assert_eq!(
        create("event_hooks", put).unwrap_err(),
        "schema violation (config.secret: there is no stored value to keep)"
    );
}

#[test]
fn form_values_get_the_types_of_the_schema() {
    let form = json!({
        "source": "crud", "event": "", "handler": "lambda", "snooze": "5", "on_change": "true",
        "config": {"functions": "return function () end"},
    });
    let hook = schema("event_hooks")
        .create(form_input(form))
        .expect("valid");
    assert_eq!(
        hook["config"],
        json!({"functions": ["return function () end"]})
    );
    assert_eq!(
        (&hook["snooze"], &hook["on_change"]),
        (&json!(5), &json!(true))
    );
    assert!(!hook.contains_key("event"));
}

#[test]
fn a_routes_default_protocols_must_be_matchable() {
    assert_eq!(
        create("routes", json!({})).unwrap_err(),
        "schema violation (must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' \
         when 'protocols' is 'https')"
    );
    assert!(create("routes", json!({"paths": ["/a"], "hosts": ["a.com"]})).is_ok());
    assert_eq!(
        create("routes", json!({"paths": ["/a", "b"]})).unwrap_err(),
        "schema violation (paths.2: should start with: / (fixed path) or ~/ (regex path))"
    );
}

#[test]
fn workspaces_have_plain_names_that_are_no_kind() {
    for name in [
        "event-hooks",
        "event_hooks",
        "consumers",
        "a b",
        "a/b",
        "*",
        "..",
    ] {
        assert!(
            create("workspaces", json!({"name": name})).is_err(),
            "{name}"
        );
    }
    assert!(create("workspaces", json!({"name": "team-a"})).is_ok());
}

#[test]
fn a_unique_text_fits_into_a_subject() {
    let message = create("consumers", json!({"username": "x".repeat(513)})).unwrap_err();
    assert_eq!(
        message,
        "schema violation (username: length must be at most 512)"
    );
}

#[test]
fn a_reference_is_an_id_or_a_name() {
    let route = |service: Value| {
        create("routes", json!({"paths": ["/"], "service": service})).map(|r| r["service"].clone())
    };
    let id = Uuid::new_v4().to_string();
    assert_eq!(route(json!({"id": id})), Ok(json!({"id": id})));
    assert_eq!(route(json!({"name": "s"})), Ok(json!({"name": "s"})));
    // Of a whole entity only the id counts.
    let whole = json!({"id": id, "host": "example.com", "retries": 5});
    assert_eq!(route(whole), Ok(json!({"id": id})));
    for (service, message) in [
        (json!("s"), "schema violation (service: expected a record)"),
        (
            json!({}),
            "schema violation (service.id: required field missing)",
        ),
        (
            json!({"id": "x"}),
            "schema violation (service.id: expected a valid UUID)",
        ),
        (
            json!({"name": "s", "x": 1}),
            "schema violation (service.x: unknown field)",
        ),
    ] {
        assert_eq!(route(service).unwrap_err(), message);
    }
}
