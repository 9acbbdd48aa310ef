//! Vaults, where secrets are kept that other entities refer to.

use serde_json::Value;

use super::field::{Field, Form, Variants};
use super::table::Schema;

pub(super) static TABLE: Schema = Schema {
    kind: "vaults",
    path: "vaults",
    endpoint_key: Some("prefix"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("prefix").unique().required().rule(prefix),
        Field::string("name").required(),
        Field::string("description"),
        Field::polymorphic("config", &CONFIG),
        Field::tags(),
    ],
    ..Schema::PLAIN
};

static CONFIG: Variants = Variants {
    selector: "name",
    unknown: "vault '{}' is not installed",
    forms: || FORMS,
};

static FORMS: &[Form] = &[("env", &[Field::string("prefix")])];

/// It stands in references, in the place of the vault's name.
fn prefix(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !begins || !text.chars().all(is_plain) || text.ends_with('-') {
        return Err(format!("invalid value: {text}"));
    }
    if text == "env" {
        return Err("must not be one of: env".to_owned());
    }
    Ok(())
}
