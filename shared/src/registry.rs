//! Built-in sources and events, as Kong's `/event-hooks/sources` lists them. Anybody may publish others.

use serde_json::{Value, json};

/// What is known of an event.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Of its data, at the top.
    pub fields: &'static [&'static str],
    /// By which events of the kind differ.
    pub unique: &'static [&'static str],
    pub description: &'static str,
}

pub const OPERATIONS: [&str; 3] = ["create", "update", "delete"];

const CRUD: &str = "crud";
const DAO_CRUD: &str = "dao:crud";

/// Sources, their events, and what is known of them. Those of `crud` are the [`KINDS`].
const SOURCES: &[(&str, &[&str], Known)] = &[
    (
        "ai-rate-limiting-advanced",
        &["rate-limit-exceeded"],
        RATE_LIMIT,
    ),
    (
        "balancer",
        &["health"],
        Known {
            fields: &["upstream_id", "ip", "port", "hostname", "health"],
            unique: &[],
            description: "A target became healthy or unhealthy",
        },
    ),
    (CRUD, KINDS, CHANGE),
    (DAO_CRUD, &OPERATIONS, CHANGE),
    (
        "oas-validation",
        &["validation-failed"],
        Known {
            fields: &["consumer", "ip", "service", "err"],
            unique: &[],
            description: "A request or response did not match its specification",
        },
    ),
    (
        "rate-limiting-advanced",
        &["rate-limit-exceeded"],
        RATE_LIMIT,
    ),
    ("service-protection", &["rate-limit-exceeded"], RATE_LIMIT),
];

const CHANGE: Known = Known {
    fields: &["operation", "entity", "old_entity", "schema"],
    unique: &[],
    description: "An entity was created, updated or deleted",
};

const RATE_LIMIT: Known = Known {
    fields: &["consumer", "ip", "service", "rate", "limit", "window"],
    unique: &["consumer", "ip", "service"],
    description: "A rate limit was exceeded",
};

/// Kinds of entities, of gateways and of Kong, in the words of Kong.
const KINDS: &[&str] = &[
    "acls",
    "admins",
    "applications",
    "basicauth_credentials",
    "ca_certificates",
    "certificates",
    "clustering_data_planes",
    "consumer_groups",
    "consumers",
    "developers",
    "event_hooks",
    "filter_chains",
    "groups",
    "hmacauth_credentials",
    "jwt_secrets",
    "key_sets",
    "keyauth_credentials",
    "keys",
    "licenses",
    "oauth2_credentials",
    "oauth2_tokens",
    "plugins",
    "rbac_roles",
    "rbac_users",
    "routes",
    "services",
    "sessions",
    "snis",
    "targets",
    "upstreams",
    "vaults",
    "workspaces",
];

pub fn sources() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(source, ..)| *source)
}

/// The events of a source; `None` if it is not built in.
#[must_use]
pub fn events(source: &str) -> Option<&'static [&'static str]> {
    let found = SOURCES.iter().find(|(name, ..)| *name == source);
    found.map(|(_, events, _)| *events)
}

/// What is known of an event, or of one with an operation, such as `consumers:update`.
#[must_use]
pub fn known(source: &str, event: &str) -> Option<&'static Known> {
    let (_, events, known) = SOURCES.iter().find(|(name, ..)| *name == source)?;
    let (name, operation) = parts(source, event);
    let is_known = events.contains(&name) && operation.is_none_or(|one| OPERATIONS.contains(&one));
    is_known.then_some(known)
}

/// Name and operation.
#[must_use]
pub fn parts<'a>(source: &str, event: &'a str) -> (&'a str, Option<&'a str>) {
    match event.split_once(':') {
        Some((name, operation)) if source == CRUD => (name, Some(operation)),
        _ => (event, None),
    }
}

/// The fields by which events of a kind differ.
#[must_use]
pub fn unique(source: &str, event: &str) -> &'static [&'static str] {
    known(source, event).map_or(&[], |known| known.unique)
}

/// Examples of an event's data, one for each operation. Without an event, of all events of the source.
#[must_use]
pub fn examples(source: &str, event: Option<&str>) -> Vec<Value> {
    let Some(events) = events(source) else {
        return Vec::new();
    };
    match (source, event) {
        (CRUD, Some(event)) if known(source, event).is_some() => {
            let (kind, operation) = parts(source, event);
            let operations = OPERATIONS.into_iter();
            let wanted = operations.filter(|one| operation.is_none_or(|only| only == *one));
            wanted.map(|operation| change(kind, operation)).collect()
        }
        (CRUD, None) => OPERATIONS.map(|one| change("consumers", one)).into(),
        (DAO_CRUD, event) => {
            let wanted = events
                .iter()
                .filter(|one| event.is_none_or(|only| only == **one));
            wanted
                .map(|operation| change("consumers", operation))
                .collect()
        }
        (_, Some(event)) if known(source, event).is_none() => Vec::new(),
        ("balancer", _) => vec![json!({
            "upstream_id": ID, "ip": "10.0.0.7", "port": 8080, "hostname": "orders-1.example.com",
            "health": "unhealthy",
        })],
        ("oas-validation", _) => vec![json!({
            "consumer": {}, "ip": "10.0.0.7", "service": entity("services"),
            "err": "request body validation failed",
        })],
        _ => vec![json!({
            "consumer": {}, "ip": "10.0.0.7", "service": entity("services"),
            "rate": 4, "limit": 3, "window": "minute",
        })],
    }
}

const ID: &str = "9d0bee90-2f4b-4c05-8b5e-6c3d2a1f0e9d";

fn change(kind: &str, operation: &str) -> Value {
    let entity = entity(kind);
    let mut data = json!({ "operation": operation, "entity": entity, "schema": kind });
    if operation == "update" {
        let mut old = data["entity"].clone();
        old["updated_at"] = json!(1_700_000_000);
        data["old_entity"] = old;
    }
    data
}

fn entity(kind: &str) -> Value {
    let mut entity = json!({ "id": ID, "created_at": 1_700_000_000, "updated_at": 1_700_000_600 });
    let fields = match kind {
        "consumers" => json!({ "username": "ada", "custom_id": "17", "tags": ["beta"] }),
        "admins" => json!({ "username": "ada", "email": "ada@example.com", "status": 0 }),
        "services" => json!({
            "name": "orders", "protocol": "https", "host": "orders.example.com", "port": 443,
            "path": "/v1", "enabled": true, "retries": 5, "connect_timeout": 60_000,
        }),
        "routes" => json!({
            "name": "orders", "paths": ["/orders"], "methods": ["GET"], "service": { "id": ID },
        }),
        "event_hooks" => json!({
            "source": "crud", "event": "consumers", "handler": "webhook",
            "config": { "url": "https://example.com" },
        }),
        _ => json!({ "name": "example" }),
    };
    if let (Some(entity), Value::Object(fields)) = (entity.as_object_mut(), fields) {
        entity.extend(fields);
    }
    entity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_have_the_fields_of_their_events() {
        for source in sources() {
            for event in events(source).expect("a source") {
                let known = known(source, event).expect("an event");
                let examples = examples(source, Some(event));
                assert!(!examples.is_empty(), "{source} {event}");
                for example in examples {
                    let example = example.as_object().expect("an object");
                    let optional = "old_entity";
                    for field in known.fields.iter().filter(|field| **field != optional) {
                        assert!(example.contains_key(*field), "{source} {event} {field}");
                    }
                    for field in example.keys() {
                        assert!(known.fields.contains(&&**field), "{source} {event} {field}");
                    }
                }
            }
            assert!(!examples(source, None).is_empty(), "{source}");
        }
        assert!(examples("crud", Some("nothing")).is_empty());
        assert_eq!(examples("crud", Some("consumers:update")).len(), 1);
        assert!(KINDS.is_sorted(), "as they are listed");
    }

    #[test]
    fn operations_belong_to_crud_only() {
        assert!(known("crud", "consumers:update").is_some());
        assert!(known("crud", "consumers:updat").is_none());
        assert!(known("balancer", "health:update").is_none());
        assert_eq!(unique("service-protection", "rate-limit-exceeded").len(), 3);
    }
}
