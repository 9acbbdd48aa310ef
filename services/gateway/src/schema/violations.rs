//! Violations of a schema, collected by field and formatted as in Kong: a tree for `fields`, one line
//! for `message`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Highest list index that `fields` shows as a list.
const MAX_LIST: usize = 1_000;
/// Further violations are dropped.
const MAX_VIOLATIONS: usize = 100;
/// Longer field names are truncated.
const MAX_NAME: usize = 128;

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
    pub(crate) fn of(field: &str, message: impl Into<String>) -> Self {
        let mut violations = Self::default();
        violations.add(&[field], message);
        violations
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a violation of the field at `path`. The first one of a field wins.
    pub(crate) fn add(&mut self, path: &[&str], message: impl Into<String>) {
        let Some((last, parents)) = path.split_last() else {
            return;
        };
        if self.count >= MAX_VIOLATIONS {
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

    /// Adds one at a place in a document, such as `services[0].routes[1]`.
    pub(crate) fn add_at(&mut self, place: &str, message: impl Into<String>) {
        let parts = parts(place);
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        self.add(&parts, message);
    }

    /// Adds those of the entity at a place in a document.
    pub(crate) fn add_all_at(&mut self, place: &str, of: &Self) {
        for message in &of.entity {
            self.add_at(&format!("{place}.@entity"), message.clone());
        }
        let mut parts = parts(place);
        self.add_inner(&mut parts, &of.fields);
    }

    fn add_inner(&mut self, path: &mut Vec<String>, issues: &BTreeMap<String, Issue>) {
        for (name, issue) in issues {
            path.push(name.clone());
            match issue {
                Issue::Message(message) => {
                    let parts: Vec<_> = path.iter().map(String::as_str).collect();
                    self.add(&parts, message.clone());
                }
                Issue::Nested(inner) => self.add_inner(path, inner),
            }
            path.pop();
        }
    }

    /// Adds a violation of the entity as a whole.
    pub(crate) fn add_entity(&mut self, message: impl Into<String>) {
        self.entity.push(message.into());
        self.count += 1;
    }

    /// All of them on one line.
    pub(crate) fn list(&self) -> String {
        self.lines().join("; ")
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.entity.clone();
        collect("", &self.fields, &mut lines);
        lines
    }

    /// One line for people.
    pub(crate) fn message(&self) -> String {
        let lines = self.lines();
        let text = lines.join("; ");
        match lines.len() {
            1 => format!("schema violation ({text})"),
            n => format!("{n} schema violations ({text})"),
        }
    }

    /// A tree for programs.
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
        // List indexes count from 1; valid elements before an invalid one are null.
        let indexes: Option<Vec<usize>> = inner.keys().map(|name| name.parse().ok()).collect();
        if let Some(highest) = indexes.and_then(|indexes| indexes.into_iter().max())
            && (1..=MAX_LIST).contains(&highest)
        {
            let element = |n: usize| inner.get(&n.to_string()).map_or(Value::Null, Self::to_json);
            return (1..=highest).map(element).collect();
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

/// The parts of a place; the elements of lists count from 1.
fn parts(place: &str) -> Vec<String> {
    let parts = place.split(['.', '[']);
    let number = |part: &str| part.strip_suffix(']')?.parse::<usize>().ok();
    let part = |part: &str| number(part).map_or_else(|| part.to_owned(), |at| (at + 1).to_string());
    parts.map(part).collect()
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
    fn a_list_element_keeps_its_index() {
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
    fn the_first_violation_of_a_field_wins() {
        let mut violations = Violations::of("a", "first");
        violations.add(&["a"], "second");
        violations.add(&["a", "b"], "third");
        assert_eq!(violations.message(), "schema violation (a: first)");
    }

    #[test]
    fn thousands_of_violations_make_no_huge_response() {
        let mut violations = Violations::default();
        for n in 0..10_000 {
            violations.add(&[&format!("{n}{}", "x".repeat(1_000))], "unknown field");
        }
        assert!(violations.message().len() < 20_000);
    }
}
