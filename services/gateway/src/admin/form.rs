//! Form fields as a tree: `a.b.c` nests, `a[]` appends, `a[2]` is a list index, `a[key]` a map key,
//! and a repeated name makes a list.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::schema::Entity;

/// Of one name.
pub(super) const MAX_DEPTH: usize = 16;

/// A name nests deeper than [`MAX_DEPTH`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooDeep;

#[derive(Debug, Default)]
pub(super) struct Form(BTreeMap<String, Node>);

#[derive(Debug)]
enum Node {
    Leaf(Value),
    List(BTreeMap<usize, Node>),
    Map(BTreeMap<String, Node>),
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    Append,
}

impl Form {
    pub(super) fn insert(&mut self, name: &str, value: Value) -> Result<(), TooDeep> {
        let mut steps = steps(name);
        if steps.len() > MAX_DEPTH {
            return Err(TooDeep);
        }
        let Step::Key(first) = steps.remove(0) else {
            return Ok(());
        };
        insert(&mut self.0, first, &steps, value);
        Ok(())
    }

    pub(super) fn into_values(self) -> Entity {
        self.0
            .into_iter()
            .map(|(name, node)| (name, node.into_value()))
            .collect()
    }
}

impl Node {
    fn into_value(self) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::List(list) => list.into_values().map(Self::into_value).collect(),
            Self::Map(map) => {
                let members = map
                    .into_iter()
                    .map(|(name, node)| (name, node.into_value()));
                Value::Object(members.collect())
            }
        }
    }

    fn of(steps: &[Step], value: Value) -> Self {
        match steps.split_first() {
            None => Self::Leaf(value),
            Some((Step::Key(key), rest)) => {
                Self::Map(BTreeMap::from([(key.clone(), Self::of(rest, value))]))
            }
            Some((Step::Index(index), rest)) => {
                Self::List(BTreeMap::from([(*index, Self::of(rest, value))]))
            }
            Some((Step::Append, rest)) => Self::List(BTreeMap::from([(1, Self::of(rest, value))])),
        }
    }

    /// Merges a value in. Where shapes differ, the later one wins.
    fn merge(&mut self, steps: &[Step], value: Value) {
        match (&mut *self, steps.split_first()) {
            (Self::Map(map), Some((Step::Key(key), rest))) => {
                insert(map, key.clone(), rest, value);
            }
            (Self::List(list), Some((Step::Index(index), rest))) => match list.get_mut(index) {
                Some(node) if !rest.is_empty() => node.merge(rest, value),
                _ => drop(list.insert(*index, Self::of(rest, value))),
            },
            (Self::List(list), Some((Step::Append, rest))) => append(list, Self::of(rest, value)),
            (Self::List(list), None) => append(list, Self::Leaf(value)),
            (Self::Leaf(first), None) => {
                let first = Self::Leaf(first.take());
                *self = Self::List(BTreeMap::from([(1, first), (2, Self::Leaf(value))]));
            }
            (_, _) => *self = Self::of(steps, value),
        }
    }
}

fn insert(map: &mut BTreeMap<String, Node>, key: String, steps: &[Step], value: Value) {
    match map.get_mut(&key) {
        Some(node) => node.merge(steps, value),
        None => drop(map.insert(key, Node::of(steps, value))),
    }
}

fn append(list: &mut BTreeMap<usize, Node>, node: Node) {
    let next = list
        .last_key_value()
        .map_or(1, |(last, _)| last.saturating_add(1));
    list.insert(next, node);
}

/// Splits a name. One that begins or ends with a dot stays whole.
fn steps(name: &str) -> Vec<Step> {
    if name.starts_with('.') || name.ends_with('.') || name.is_empty() {
        return vec![Step::Key(name.to_owned())];
    }
    segments(name).into_iter().flat_map(segment_steps).collect()
}

/// Splits at dots outside brackets.
fn segments(name: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let (mut start, mut in_brackets) = (0, false);
    let last_bracket = name.rfind(']').unwrap_or(0);
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'[' if at < last_bracket => in_brackets = true,
            b']' => in_brackets = false,
            b'.' if !in_brackets => {
                segments.push(&name[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        // The caller refuses this depth; stop before walking a million dots.
        if segments.len() > MAX_DEPTH {
            break;
        }
    }
    segments.push(&name[start..]);
    segments.retain(|segment| !segment.is_empty());
    segments
}

/// `base[x][y]` as steps. Brackets count only at the end and after a base.
fn segment_steps(segment: &str) -> Vec<Step> {
    let mut base = segment;
    let mut steps = Vec::new();
    while let Some((before, inside)) = base
        .strip_suffix(']')
        .and_then(|open| open.rsplit_once('['))
        && !before.is_empty()
        && steps.len() <= MAX_DEPTH
    {
        steps.push(match inside {
            "" => Step::Append,
            inside => match inside.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => Step::Key(inside.to_owned()),
            },
        });
        base = before;
    }
    steps.push(Step::Key(base.to_owned()));
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn form(fields: &[(&str, &str)]) -> Value {
        let mut form = Form::default();
        for (name, value) in fields {
            form.insert(name, json!(value)).expect("not too deep");
        }
        Value::Object(form.into_values())
    }

    #[test]
    fn dots_nest() {
        assert_eq!(
            form(&[
                ("handler", "webhook-custom"),
                ("config.method", "POST"),
                ("config.headers.content-type", "application/json"),
                ("config.payload.text", "x"),
            ]),
            json!({"handler": "webhook-custom", "config": {
                "method": "POST", "headers": {"content-type": "application/json"},
                "payload": {"text": "x"}}})
        );
    }

    #[test]
    fn dots_at_the_ends_do_not_split() {
        assert_eq!(
            form(&[(".a", "1"), ("a.", "2"), ("", "3")]),
            json!({".a": "1", "a.": "2", "": "3"})
        );
    }

    #[test]
    fn brackets_append_index_or_name() {
        assert_eq!(
            form(&[("a[]", "x"), ("a[]", "y")]),
            json!({"a": ["x", "y"]})
        );
        assert_eq!(
            form(&[("a[2]", "y"), ("a[1]", "x")]),
            json!({"a": ["x", "y"]})
        );
        assert_eq!(
            form(&[("a[k]", "x"), ("a[l.m]", "y")]),
            json!({"a": {"k": "x", "l.m": "y"}})
        );
        assert_eq!(
            form(&[("a.b[1].c", "x")]),
            json!({"a": {"b": [{"c": "x"}]}})
        );
        assert_eq!(
            form(&[("a[b", "x"), ("[]", "y")]),
            json!({"a[b": "x", "[]": "y"})
        );
    }

    #[test]
    fn a_name_given_twice_makes_a_list() {
        assert_eq!(
            form(&[("a", "1"), ("a", "2"), ("a", "3")]),
            json!({"a": ["1", "2", "3"]})
        );
    }

    #[test]
    fn a_large_index_costs_no_memory() {
        assert_eq!(
            form(&[("a[18446744073709551615]", "x"), ("a[]", "y")]),
            json!({"a": ["y"]})
        );
    }

    #[test]
    fn where_shapes_differ_the_later_one_wins() {
        assert_eq!(form(&[("a", "1"), ("a.b", "2")]), json!({"a": {"b": "2"}}));
    }

    #[test]
    fn a_name_cannot_nest_without_end() {
        for name in [
            "a.".repeat(100_000) + "a",
            "a".to_owned() + &"[]".repeat(100_000),
        ] {
            assert_eq!(Form::default().insert(&name, json!("x")), Err(TooDeep));
        }
    }
}
