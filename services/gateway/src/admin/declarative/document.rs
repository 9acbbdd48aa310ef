//! Kong's declarative format: lists of entities by kind, those that belong to another within it or beside it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema, Scope, Violations};

const FORMAT_VERSION: &str = "_format_version";
const TRANSFORM: &str = "_transform";
/// Versions of the format that are read.
const VERSIONS: [&str; 3] = ["1.1", "2.1", "3.0"];
/// Of the format that is written.
const VERSION: &str = "3.0";
/// What other tools write, and nothing depends on.
const IGNORED: [&str; 6] = [
    "_comment",
    "_ignore",
    "_info",
    "_workspace",
    "_konnect",
    "_plugin_configs",
];
/// Tools write so which groups a consumer is in, and who is in a group: within which kind, by which name, and the fields
/// of the membership.
const MEMBERS: [(&str, &str, &str, &str); 2] = [
    ("consumers", "groups", "consumer", "consumer_group"),
    ("consumer_groups", "consumers", "consumer_group", "consumer"),
];

/// What the entities of a workspace are to be.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) wanted: Vec<Wanted>,
    /// The kinds that it decides about: of these there is nothing else.
    pub(super) kinds: BTreeSet<&'static str>,
    /// Whether passwords are given, and not what is stored of them.
    pub(super) transforms: bool,
}

#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) schema: &'static Schema,
    pub(super) input: Entity,
    /// The field that names what it stands in, and the place of that in the list.
    pub(super) within: Option<(&'static str, usize)>,
    /// Where it stands, for errors.
    pub(super) path: String,
}

/// The kinds that documents have: all that belong to a workspace, but not what gives rights.
pub(super) fn kinds() -> impl Iterator<Item = &'static Schema> {
    let tokens = Schema::ingest_tokens().kind;
    Schema::kinds().filter(move |schema| {
        schema.scope != Scope::Global && !schema.gives_rights() && schema.kind != tokens
    })
}

/// Whether other tools' documents can have a kind. What they cannot have, a document decides about only if it names it.
fn is_known_elsewhere(schema: &Schema) -> bool {
    schema.kind != Schema::event_hooks().kind
}

/// YAML, of which JSON is a part.
pub(in super::super) fn parse(text: &str) -> Result<Entity, ApiError> {
    let most = text.len().max(1_000);
    let mut budget = serde_saphyr::Budget::default();
    // What repeats itself by aliases gets no larger than it is written.
    budget.max_nodes = most;
    budget.max_events = 4 * most;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    let parsed: Result<Value, _> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(Value::Object(values)) => Ok(values),
        Ok(_) => Err(ApiError::Declarative(
            "expected an object with a list for each kind".to_owned(),
            Value::Null,
        )),
        Err(error) => {
            let said = error.to_string();
            let first = said.lines().next().unwrap_or_default();
            let first = first.trim_start_matches("error: ");
            Err(ApiError::Declarative(
                format!("failed parsing declarative configuration: {first}"),
                Value::Null,
            ))
        }
    }
}

/// As YAML.
pub(super) fn write(document: &Value) -> Result<String, ApiError> {
    serde_saphyr::to_string(document).map_err(|error| {
        tracing::error!(%error, "cannot write YAML");
        ApiError::Internal
    })
}

/// A document of lists of entities.
pub(super) fn of_lists(lists: Vec<(&'static str, Vec<Value>)>) -> Value {
    let mut document = Map::from_iter([
        (FORMAT_VERSION.to_owned(), json!(VERSION)),
        // Passwords are as they are stored.
        (TRANSFORM.to_owned(), json!(false)),
    ]);
    for (kind, list) in lists {
        document.insert(kind.to_owned(), list.into());
    }
    Value::Object(document)
}

impl Document {
    pub(super) fn read(mut values: Entity) -> Result<Self, ApiError> {
        let mut problems = Violations::default();
        let version = match values.shift_remove(FORMAT_VERSION) {
            Some(Value::String(version)) => version,
            // As numbers they lose their zero.
            Some(Value::Number(version)) => format!("{:.1}", version.as_f64().unwrap_or_default()),
            Some(_) => String::new(),
            None => {
                problems.add(&[FORMAT_VERSION], "required field missing");
                VERSION.to_owned()
            }
        };
        if !VERSIONS.contains(&version.as_str()) {
            let says = format!("expected one of: {}", VERSIONS.join(", "));
            problems.add(&[FORMAT_VERSION], says);
        }
        let transforms = match values.shift_remove(TRANSFORM) {
            None => true,
            Some(Value::Bool(transforms)) => transforms,
            Some(_) => {
                problems.add(&[TRANSFORM], "expected a boolean");
                true
            }
        };
        for name in IGNORED {
            values.shift_remove(name);
        }
        let mut document = Self {
            wanted: Vec::new(),
            kinds: kinds()
                .filter(|schema| is_known_elsewhere(schema) || values.contains_key(schema.kind))
                .map(|schema| schema.kind)
                .collect(),
            transforms,
        };
        for (name, list) in values {
            match kinds().find(|schema| schema.kind == name) {
                Some(schema) => document.take_list(schema, list, None, &name, &mut problems),
                None => problems.add(&[&name], "unknown field"),
            }
        }
        match problems.is_empty() {
            true => Ok(document),
            false => Err(ApiError::declarative(&problems)),
        }
    }

    fn take_list(
        &mut self,
        schema: &'static Schema,
        list: Value,
        within: Option<(&'static str, usize)>,
        path: &str,
        problems: &mut Violations,
    ) {
        match list {
            Value::Null => {}
            Value::Array(list) => {
                for (at, one) in list.into_iter().enumerate() {
                    let path = format!("{path}[{at}]");
                    match one {
                        Value::Object(one) => self.take(schema, one, within, path, problems),
                        // Short for an entity with that name.
                        Value::String(name) if schema.endpoint_key.is_some() => {
                            let key = schema.endpoint_key.unwrap_or_default();
                            let one = Entity::from_iter([(key.to_owned(), name.into())]);
                            self.take(schema, one, within, path, problems);
                        }
                        _ => problems.add_at(&path, "expected a record"),
                    }
                }
            }
            _ => problems.add_at(path, "expected an array"),
        }
    }

    /// An entity, and after it what stands in it.
    fn take(
        &mut self,
        schema: &'static Schema,
        mut input: Entity,
        within: Option<(&'static str, usize)>,
        path: String,
        problems: &mut Violations,
    ) {
        let children: Vec<_> = schema
            .referenced_by()
            .filter(|(child, _)| !child.is_link && schema.field(child.kind).is_none())
            .filter(|(child, _)| kinds().any(|kind| kind.kind == child.kind))
            .filter_map(|(child, field)| Some((child, field, input.shift_remove(child.kind)?)))
            .collect();
        let members = MEMBERS.iter().find(|(kind, ..)| *kind == schema.kind);
        let members = members.and_then(|(_, name, field, other)| {
            Some((*name, *field, *other, input.shift_remove(*name)?))
        });
        let at = self.wanted.len();
        self.wanted.push(Wanted {
            schema,
            input,
            within,
            path: path.clone(),
        });
        for (child, field, list) in children {
            let path = format!("{path}.{}", child.kind);
            self.take_list(child, list, Some((field, at)), &path, problems);
        }
        if let Some((name, field, other, list)) = members {
            let path = format!("{path}.{name}");
            let link = |one: Value| json!({ other: one });
            let list = match list {
                Value::Array(list) => list.into_iter().map(link).collect(),
                list => list,
            };
            self.take_list(Schema::members(), list, Some((field, at)), &path, problems);
        }
    }
}

impl Wanted {
    pub(super) fn input(&self) -> Input {
        Input {
            values: self.input.clone(),
            form: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Document, ApiError> {
        Document::read(parse(text)?)
    }

    #[test]
    fn what_stands_within_another_names_it() {
        let document = read(
            "_format_version: \"3.0\"\nservices:\n- name: s\n  host: h\n  routes:\n  - name: r\n    \
             paths: [/r]\n    plugins:\n    - name: cors\nconsumers:\n- username: ada\n  groups:\n  - name: g\n",
        );
        let wanted = document.expect("a document").wanted;
        let shown: Vec<_> = wanted
            .iter()
            .map(|one| (one.schema.kind, one.within, one.path.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("services", None, "services[0]"),
                ("routes", Some(("service", 0)), "services[0].routes[0]"),
                (
                    "plugins",
                    Some(("route", 1)),
                    "services[0].routes[0].plugins[0]"
                ),
                ("consumers", None, "consumers[0]"),
                (
                    "consumer_group_consumers",
                    Some(("consumer", 3)),
                    "consumers[0].groups[0]"
                ),
            ]
        );
    }

    #[test]
    fn hooks_are_decided_about_only_if_they_are_named() {
        let hooks = Schema::event_hooks().kind;
        let without = read("_format_version: '3.0'").expect("a document");
        assert!(without.kinds.contains("services") && !without.kinds.contains(hooks));
        let with = read("_format_version: '3.0'\nevent_hooks: []").expect("a document");
        assert!(with.kinds.contains(hooks));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for (text, says) in [
            ("", "expected an object"),
            ("- 1", "expected an object"),
            (
                "a: b: c",
                "failed parsing declarative configuration: line 1 column 5",
            ),
            ("services: []", "required field missing"),
            ("_format_version: '9'", "expected one of: 1.1, 2.1, 3.0"),
            ("_format_version: '3.0'\nnothing: []", "unknown field"),
            ("_format_version: '3.0'\nservices: {}", "expected an array"),
            ("_format_version: '3.0'\nservices: [1]", "expected a record"),
            ("_format_version: '3.0'\nrbac_users: []", "unknown field"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn aliases_do_not_make_a_document_larger() {
        let mut text = String::from("a: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let of = format!("*a{}", n - 1);
            text += &format!("b{n}: &a{n} [{}]\n", [of.as_str(); 10].join(","));
        }
        let error = parse(&text).expect_err("too much").to_string();
        assert!(error.contains("budget"), "{error}");
    }
}
