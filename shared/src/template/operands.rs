//! Internal filters that operands pass before an operator or filter uses them. No template can name them.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::budget::{self, Use};
use super::filters;

/// See [`Use`].
pub(super) const READ: &str = "_read";
pub(super) const ITEMS: &str = "_items";
pub(super) const TEXT: &str = "_text";
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
    environment.add_filter(NUMBER, |state: &State, value: Value| {
        if is_container(&value) {
            let what = "lists and maps cannot be added or multiplied";
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        budget::charge(state, &value, Use::Text).map(|()| value)
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
