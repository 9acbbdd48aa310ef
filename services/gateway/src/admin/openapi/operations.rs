//! What each path does, by the methods that it has.

use serde_json::{Value, json};

use super::super::routes::{Access, Link, Route, Target};
use super::{component, path};
use crate::schema::{For, Schema};

/// One method of a path.
struct Operation {
    summary: String,
    query: Vec<Value>,
    body: Option<Value>,
    status: u16,
    /// If the answer has a body.
    answer: Option<Value>,
}

/// Adds the operations of a path.
pub(super) fn add(item: &mut Value, route: &Route, with_tokens: bool) {
    let parameters = route.pattern.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?.trim_start_matches('*');
        let about = match name {
            "key" => "An id, or the name that stands for it.",
            _ => "",
        };
        let schema = json!({ "type": "string", "minLength": 1 });
        Some(json!({ "name": name, "in": "path", "required": true, "schema": schema, "description": about }))
    });
    item["parameters"] = parameters.collect();
    if route.scope.is_none() {
        item["servers"] = json!([{ "url": "/" }]);
    }
    for method in route
        .methods
        .split(", ")
        .filter(|method| *method != "OPTIONS")
    {
        let of = if method == "HEAD" { "GET" } else { method };
        let mut operation = operation(route.target, of);
        if method == "HEAD" {
            operation.answer = None;
        }
        let id = format!("{} {}", method.to_lowercase(), path(&route.pattern));
        item[method.to_lowercase()] = operation.show(route, &id, with_tokens);
    }
}

impl Operation {
    fn show(self, route: &Route, id: &str, with_tokens: bool) -> Value {
        let mut success = json!({ "description": "Done." });
        if let Some(answer) = self.answer {
            success["content"] = json!({ media(route.target): { "schema": answer } });
        }
        let failure = json!({ "$ref": "#/components/responses/Error" });
        let mut shown = json!({
            "operationId": id,
            "tags": [route.kind],
            "summary": self.summary,
            "responses": { self.status.to_string(): success, "default": failure },
        });
        if !self.query.is_empty() {
            shown["parameters"] = self.query.into();
        }
        if let Some(body) = self.body {
            shown["requestBody"] = json!({ "content": { "application/json": { "schema": body } } });
        }
        if with_tokens && route.access != Access::Open {
            shown["security"] = json!([{ "token": [] }]);
        }
        shown
    }
}

fn media(target: Target) -> &'static str {
    match target {
        Target::OpenApiPage => "text/html",
        _ => "application/json",
    }
}

/// What answers and requests have beyond an entity's own fields.
pub(super) fn add_extras(schema: &Schema, of: For, described: &mut Value) {
    let text = json!({ "type": "string" });
    let optional_text = json!({ "type": ["string", "null"] });
    let texts = json!({ "type": "array", "items": text });
    let properties = &mut described["properties"];
    match (schema.kind, of) {
        ("certificates", For::Answer) => properties["snis"] = texts,
        ("certificates", _) => {
            properties["snis"] = json!({ "type": ["array", "null"], "items": text })
        }
        ("services", For::Create | For::Update) => {
            properties["url"] = json!({
                "type": ["string", "null"], "format": "uri", "description": "Stands for protocol, host, port and path.",
            });
            // A URL names the host.
            if let Value::Object(described) = described {
                described.shift_remove("required");
            }
        }
        ("event_hooks", For::Answer) => {
            properties["hears"] = text.clone();
            properties["public_key"] = text.clone();
            properties["warning"] = text;
        }
        ("event_hooks", _) => {
            for said in ["hears", "public_key", "warning"] {
                properties[said] = json!({ "description": "What answers say: it is left out." });
            }
        }
        ("rbac_users", For::Answer) => properties["user_token"] = optional_text,
        ("rbac_role_endpoints", For::Create | For::Update) => {
            properties["actions"] = json!({ "type": ["array", "string", "null"] });
        }
        _ => {}
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn object() -> Value {
    json!({ "type": "object" })
}

fn query(name: &str, schema: &Value, about: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": schema, "description": about })
}

/// What lists may be asked by.
fn paging(schema: Option<&Schema>) -> Vec<Value> {
    let any_text = json!({ "type": "string" });
    let text = json!({ "type": "string", "minLength": 1 });
    let size = json!({ "type": "integer", "minimum": 1, "maximum": 1_000, "default": 100 });
    let mut known = vec![
        query("size", &size, "Of a page."),
        query("offset", &text, "Of the page, as the one before it says."),
    ];
    let Some(schema) = schema else {
        return known;
    };
    if schema.field("tags").is_some() {
        known.push(query(
            "tags",
            &text,
            "`a,b`: those with both; `a/b`: those with one of them.",
        ));
    }
    for filter in schema.filters {
        known.push(query(filter, &any_text, "The one with this."));
    }
    known
}

fn show(summary: String, answer: Value) -> Operation {
    Operation {
        summary,
        query: Vec::new(),
        body: None,
        status: 200,
        answer: Some(answer),
    }
}

fn delete(summary: String) -> Operation {
    Operation {
        summary,
        query: Vec::new(),
        body: None,
        status: 204,
        answer: None,
    }
}

fn send(summary: String, body: Value, status: u16, answer: Value) -> Operation {
    Operation {
        summary,
        query: Vec::new(),
        body: Some(body),
        status,
        answer: Some(answer),
    }
}

/// An entity as a request has it, but for the fields that the path gives.
fn body(schema: &Schema, of: For, given: &[&str]) -> Value {
    if given.is_empty() {
        return reference(&component(schema, of));
    }
    let mut described = schema.json_schema(of);
    add_extras(schema, of, &mut described);
    for field in given {
        described["properties"][field] = json!({ "description": "The path says it." });
    }
    if let Some(Value::Array(required)) = described.get_mut("required") {
        required.retain(|name| !given.iter().any(|field| name == field));
    }
    described
}

/// One of a kind, such as `an acl`.
fn one(schema: &Schema) -> String {
    let name = schema.kind.replace('_', " ");
    let name = name.strip_suffix('s').unwrap_or(&name);
    match name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => format!("an {name}"),
        false => format!("a {name}"),
    }
}

fn of_parent(link: Link) -> String {
    format!(" of {}", one(link.parent))
}

/// `within`: the entities are those of another.
fn of_entities(schema: &Schema, within: Option<Link>, method: &str) -> Operation {
    let kind = schema.kind;
    let of = within.map(of_parent).unwrap_or_default();
    match method {
        "GET" => Operation {
            query: paging(Some(schema)),
            ..show(
                format!("Lists {}{of}", kind.replace('_', " ")),
                reference(&format!("{kind}-page")),
            )
        },
        _ => {
            let (status, answer) = match kind {
                "admins" => (200, object()),
                _ => (201, reference(kind)),
            };
            let given: Vec<_> = within.iter().map(|link| link.field).collect();
            let body = body(schema, For::Create, &given);
            send(format!("Creates {}{of}", one(schema)), body, status, answer)
        }
    }
}

/// `of`: whose it is.
fn of_entity(schema: &Schema, within: Option<Link>, of: &str, method: &str) -> Operation {
    let (kind, one) = (schema.kind, one(schema));
    let mut given: Vec<_> = within.iter().map(|link| link.field).collect();
    match method {
        "GET" => {
            let answer = match kind {
                "consumer_groups" => object(),
                "admins" => json!({ "anyOf": [reference(kind), object()] }),
                _ => reference(kind),
            };
            show(format!("Shows {one}{of}"), answer)
        }
        "PATCH" => send(
            format!("Changes {one}{of}"),
            body(schema, For::Update, &[]),
            200,
            reference(kind),
        ),
        "PUT" => {
            given.push("id");
            given.extend(schema.endpoint_key);
            send(
                format!("Replaces {one}{of}, or creates it"),
                body(schema, For::Update, &given),
                200,
                reference(kind),
            )
        }
        _ => delete(format!("Deletes {one}{of}")),
    }
}

fn named(what: &str) -> Operation {
    show(what.to_owned(), object())
}

fn paged(what: &str) -> Operation {
    Operation {
        query: paging(None),
        ..named(what)
    }
}

fn does(what: &str, status: u16) -> Operation {
    send(what.to_owned(), object(), status, object())
}

fn operation(target: Target, method: &str) -> Operation {
    match target {
        Target::Collection(schema) => of_entities(schema, None, method),
        Target::Item(schema) => of_entity(schema, None, "", method),
        Target::Children(link) => of_entities(link.child, Some(link), method),
        Target::Child(link) => of_entity(link.child, Some(link), &of_parent(link), method),
        Target::Parent(link) => {
            let of = format!(" that {} refers to", one(link.child));
            of_entity(link.parent, None, &of, method)
        }
        Target::Members(of) => match method {
            "GET" => paged(&members("Lists", of)),
            "POST" => does(&members("Adds", of), 201),
            _ => delete(members("Removes all", of)),
        },
        Target::Member(of) => match method {
            "GET" => named(&members("Shows one of the", of)),
            _ => delete(members("Removes one of the", of)),
        },
        Target::GroupRates => match method {
            "PUT" => does("Sets the rates of a group", 201),
            _ => delete("Removes the rates of a group".to_owned()),
        },
        Target::Health => Operation {
            query: paging(Some(Schema::targets())),
            ..named("Lists the targets with their health")
        },
        Target::MarkHealth(mark) | Target::MarkAddress(mark) => {
            delete(format!("Says of a target that it is {mark}"))
        }
        Target::PartialLinks => paged("Lists the plugins that a partial is part of"),
        Target::WorkspaceMeta => named("How many entities a workspace has"),
        Target::Config => match method {
            "GET" => named("Every entity of the workspace as one document"),
            _ => does("Makes the workspace's entities those of a document", 201),
        },
        other => of_node(other)
            .or_else(|| of_hook(other, method))
            .unwrap_or_else(|| of_user(other, method)),
    }
}

/// Of a group its consumers, of a consumer its groups.
fn members(does: &str, of: &Schema) -> String {
    match of.kind == Schema::consumers().kind {
        true => format!("{does} groups of a consumer"),
        false => format!("{does} consumers of a group"),
    }
}

fn of_node(target: Target) -> Option<Operation> {
    let text = json!({ "type": "string" });
    let tagged = json!({
        "type": "object",
        "required": ["tag", "entity_name", "entity_id"],
        "properties": { "tag": text, "entity_name": text, "entity_id": text },
    });
    Some(match target {
        Target::Node => named("What the node is"),
        Target::Status => named("How the node is"),
        Target::Endpoints => named("Lists the paths"),
        Target::OpenApi => named("This document"),
        Target::OpenApiPage => show("This document as a page".to_owned(), text),
        Target::Schema => named("The fields of a kind"),
        Target::SchemaOfPlugin => named("The fields of a plugin"),
        Target::EnabledPlugins => named("The names of all plugins"),
        Target::ValidateSchema => does("Checks an entity, and stores nothing", 200),
        Target::Tags => Operation {
            query: paging(None),
            ..show("Lists what has tags".to_owned(), super::page(&tagged))
        },
        Target::AuditRequests => paged("Lists audit records, newest first"),
        _ => return None,
    })
}

fn of_hook(target: Target, method: &str) -> Option<Operation> {
    Some(match target {
        Target::Sources => named("The events that hooks can hear"),
        Target::Ping => named("Pings the receiver of a hook"),
        Target::Test => does("Delivers a made-up event to a hook", 200),
        Target::HookStatus => named("How a hook is"),
        Target::Deliveries => paged("Lists deliveries that wait, or are dead"),
        Target::RetryNow => does("Makes waiting deliveries due", 200),
        Target::Attempts => paged("Lists attempts, newest first"),
        Target::Replay => does("Delivers dead letters again", 200),
        Target::Dead => delete("Deletes dead letters of a hook".to_owned()),
        Target::DeadEvents | Target::DeadEvent if method == "DELETE" => {
            delete("Deletes what was no event".to_owned())
        }
        Target::DeadEvents => paged("Lists what was no event"),
        Target::DeadEvent => named("Shows what was no event"),
        Target::PublishDeadEvent => does("Publishes it again, mended or as it is", 200),
        _ => return None,
    })
}

fn of_user(target: Target, method: &str) -> Operation {
    match (target, method) {
        (Target::Register, _) => does("Accepts an invitation", 201),
        (Target::OwnToken, _) => does("Makes another token for whoever asks", 200),
        (Target::UserInfo, _) => named("Who asks"),
        (Target::UserRoles(_), "GET") => named("The roles of a user"),
        (Target::UserRoles(_), "POST") => does("Gives a user roles", 201),
        (Target::UserRoles(_), _) => delete("Takes roles from a user".to_owned()),
        (Target::UserPermissions(_), _) => named("What a user may do"),
        (Target::UserWorkspaces(_), _) => show(
            "The workspaces in which a user may do something".to_owned(),
            json!({ "type": ["object", "array"] }),
        ),
        (Target::RoleEndpoint, "GET") => named("What a role permits on a path"),
        (Target::RoleEndpoint, "PATCH") => does("Changes what a role permits on a path", 200),
        (Target::RoleEndpoint, _) => delete("Takes a path from a role".to_owned()),
        _ => named("What a role permits"),
    }
}
