//! Internal filters that operands pass before an operator or filter uses them. No template can name them.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::budget::{self, Use};
use super::{filters, number};

/// See [`Use`].
pub(super) const READ: &str = "_read";
pub(super) const ITEMS: &str = "_items";
pub(super) const TEXT: &str = "_text";
/// What is compared, or computed with.
pub(super) const COMPARED: &str = "_compared";
/// What is only looked at for its kind.
pub(super) const KIND: &str = "_kind";
/// What a filter of texts gets.
pub(super) const CHARS: &str = "_chars";
/// What a filter gets that computes with items.
pub(super) const COMPUTED: &str = "_computed";
/// The operand of an arithmetic operator.
pub(super) const NUMBER: &str = "_number";
/// The operand of `~`.
pub(super) const JOINED: &str = "_joined";

pub(super) fn register(environment: &mut Environment<'static>) {
    for (name, used) in [(READ, Use::Read), (ITEMS, Use::Items), (TEXT, Use::Text)] {
        environment.add_filter(name, move |state: &State, value: Value| {
            budget::charge(state, &value, used).map(|()| value)
        });
    }
    for (name, used) in [(COMPARED, Use::Read), (COMPUTED, Use::Items)] {
        environment.add_filter(name, move |state: &State, value: Value| {
            budget::charge(state, &value, used).map(|()| number::plain(&value))
        });
    }
    environment.add_filter(KIND, |value: Value| match number::published(&value) {
        Some(_) => number::plain(&value),
        None => value,
    });
    environment.add_filter(CHARS, |state: &State, value: Value| {
        budget::charge(state, &value, Use::Read)?;
        Ok(match number::published(&value) {
            Some(text) => Value::from(text),
            None => value,
        })
    });
    environment.add_filter(NUMBER, |state: &State, value: Value| {
        if is_container(&value) {
            let what = "lists and maps cannot be added or multiplied";
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        budget::charge(state, &value, Use::Text).map(|()| number::plain(&value))
    });
    environment.add_filter(JOINED, |state: &State, value: Value| {
        if is_container(&value) {
            return filters::text(state, value);
        }
        budget::charge(state, &value, Use::Text).map(|()| value)
    });
}

fn is_container(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
    )
}
