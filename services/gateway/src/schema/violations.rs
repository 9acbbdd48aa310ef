//! What is wrong with an entity, collected field by field, in Kong's form: a tree for `fields`, one
//! line for `message`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The most places of a list that `fields` spells out.
const MAX_LIST: usize = 1_000;
/// The most violations that are told; what is beyond is left out.
const MAX_TOLD: usize = 100;
/// The longest name of a field that is echoed.
const MAX_NAME: usize = 128;

/// What is wrong with an entity. Empty: nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Violations {
    entity: Vec<String>,
    fields: BTreeMap<String, Issue>,
    count: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Issue {
    Message(String),
    Nested(BTreeMap<String, Issue>),
}

impl Violations {
    /// One violation of one field.
    #[must_use]
    pub(crate) fn of(field: &str, message: impl Into<String>) -> Self {
        let mut violations = Self::default();
        violations.add(&[field], message);
        violations
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Notes what is wrong with the field at `path`. The first message of a field stays.
    pub(crate) fn add(&mut self, path: &[&str], message: impl Into<String>) {
        let Some((last, parents)) = path.split_last() else {
            return;
        };
        if self.count >= MAX_TOLD {
            return;
        }
        let mut fields = &mut self.fields;
        for name in parents {
            let issue = fields
                .entry(shorten(name))
                .or_insert_with(|| Issue::Nested(BTreeMap::new()));
            match issue {
                Issue::Nested(inner) => fields = inner,
                Issue::Message(_) => return,
            }
        }
        if let std::collections::btree_map::Entry::Vacant(entry) = fields.entry(shorten(last)) {
            entry.insert(Issue::Message(message.into()));
            self.count += 1;
        }
    }

    /// Notes what is wrong with the entity as a whole.
    pub(crate) fn add_entity(&mut self, message: impl Into<String>) {
        self.entity.push(message.into());
        self.count += 1;
    }

    /// The line for people.
    #[must_use]
    pub(crate) fn message(&self) -> String {
        let mut lines = self.entity.clone();
        collect("", &self.fields, &mut lines);
        let text = lines.join("; ");
        match lines.len() {
            1 => format!("schema violation ({text})"),
            n => format!("{n} schema violations ({text})"),
        }
    }

    /// The tree for programs.
    #[must_use]
    pub(crate) fn fields(&self) -> Value {
        let mut fields = Map::new();
        if !self.entity.is_empty() {
            fields.insert("@entity".into(), json!(self.entity));
        }
        for (name, issue) in &self.fields {
            fields.insert(name.clone(), issue.to_json());
        }
        Value::Object(fields)
    }
}

impl Issue {
    fn to_json(&self) -> Value {
        let inner = match self {
            Self::Message(message) => return json!(message),
            Self::Nested(inner) => inner,
        };
        // Places of a list count from 1; sound ones before a bad one are null.
        let places: Option<Vec<usize>> = inner.keys().map(|name| name.parse().ok()).collect();
        if let Some(highest) = places.and_then(|places| places.into_iter().max())
            && (1..=MAX_LIST).contains(&highest)
        {
            let place = |n: usize| inner.get(&n.to_string()).map_or(Value::Null, Self::to_json);
            return (1..=highest).map(place).collect();
        }
        let members = inner
            .iter()
            .map(|(name, issue)| (name.clone(), issue.to_json()));
        Value::Object(members.collect())
    }
}

fn collect(prefix: &str, fields: &BTreeMap<String, Issue>, lines: &mut Vec<String>) {
    for (name, issue) in fields {
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match issue {
            Issue::Message(message) => lines.push(format!("{path}: {message}")),
            Issue::Nested(inner) => collect(&path, inner, lines),
        }
    }
}

fn shorten(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_violation_and_several_read_as_in_kong() {
        let mut violations = Violations::of("foo", "unknown field");
        assert_eq!(
            violations.message(),
            "schema violation (foo: unknown field)"
        );
        assert_eq!(violations.fields(), json!({"foo": "unknown field"}));
        violations.add(&["config", "url"], "required field missing");
        violations.add_entity("at least one");
        assert_eq!(
            violations.message(),
            "3 schema violations (at least one; config.url: required field missing; \
             foo: unknown field)"
        );
        assert_eq!(
            violations.fields(),
            json!({"@entity": ["at least one"], "config": {"url": "required field missing"},
                   "foo": "unknown field"})
        );
    }

    #[test]
    fn a_place_in_a_list_keeps_its_place() {
        let mut violations = Violations::default();
        violations.add(&["paths", "2"], "should start with: /");
        assert_eq!(
            violations.message(),
            "schema violation (paths.2: should start with: /)"
        );
        assert_eq!(
            violations.fields(),
            json!({"paths": [null, "should start with: /"]})
        );
    }

    #[test]
    fn the_first_message_of_a_field_stays() {
        let mut violations = Violations::of("a", "first");
        violations.add(&["a"], "second");
        violations.add(&["a", "b"], "third");
        assert_eq!(violations.message(), "schema violation (a: first)");
    }

    #[test]
    fn thousands_of_violations_make_no_huge_answer() {
        let mut violations = Violations::default();
        for n in 0..10_000 {
            violations.add(&[&format!("{n}{}", "x".repeat(1_000))], "unknown field");
        }
        assert!(violations.message().len() < 20_000);
    }
}
