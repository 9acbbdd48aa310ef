//! What senders of events over HTTP show: see `ingest`.

use serde_json::Value;

use hookline_shared::subject::is_internal_source;

use super::build::Input;
use super::field::{Default, Field};
use super::rules;
use super::table::{Entity, Schema};
use super::violations::Violations;
use crate::access::token;

pub(super) static TABLE: Schema = Schema {
    kind: "ingest_tokens",
    path: "ingest-tokens",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name").unique().required().rule(rules::name),
        Field::token(TOKEN).rule(rules::generated_token).secret(),
        Field::set("sources", &SOURCE).required(),
        Field::boolean("enabled").default(Default::Boolean(true)),
        Field::expires_at(),
        Field::string("comment"),
        Field::tags(),
    ],
    checks: &[names_a_source],
    carry_over: Some(keep_token),
    ..Schema::PLAIN
};

pub(crate) const TOKEN: &str = "token";
/// Stands for all sources but those that only gateways know about, which a token has to name.
pub(crate) const ANY_SOURCE: &str = "*";

/// Sources whose events gateways raise themselves, of changes of entities: a token that may raise them names them.
pub(crate) const OF_CHANGES: [&str; 2] = ["crud", "dao:crud"];

/// Whether a token may raise events of changes.
pub(crate) fn names_changes(token: &Entity) -> bool {
    let sources = token.get("sources").and_then(Value::as_array);
    let mut sources = sources.into_iter().flatten().filter_map(Value::as_str);
    sources.any(|source| OF_CHANGES.contains(&source))
}

static SOURCE: Field = Field::string("").rule(source);

/// A token that is shown once, if none is given.
pub(crate) fn make_token(schema: &Schema, input: &mut Input) {
    let given = input.values.get(TOKEN);
    let is_given = given.is_some_and(|token| !token.is_null() && token != "");
    if schema.kind == TABLE.kind && !is_given {
        input
            .values
            .insert(TOKEN.to_owned(), token::generate().into());
    }
}

/// A stored text is no token: nobody could send what it is the digest of.
pub(crate) fn check_given(schema: &Schema, given: &str) -> Result<(), Violations> {
    match schema.kind == TABLE.kind && !token::is_generated(given) {
        true => Err(Violations::of(TOKEN, rules::NOT_GENERATED)),
        false => Ok(()),
    }
}

fn keep_token(current: &Entity, values: &mut Entity) {
    let given = values.get(TOKEN).is_some_and(|token| !token.is_null());
    if let (false, Some(token)) = (given, current.get(TOKEN)) {
        values.insert(TOKEN.to_owned(), token.clone());
    }
}

fn source(value: &Value) -> Result<(), String> {
    let name = value.as_str().unwrap_or_default();
    match name {
        "" => Err("length must be at least 1".to_owned()),
        name if is_internal_source(name) => Err(format!("only gateways raise events of {name}")),
        _ => Ok(()),
    }
}

fn names_a_source(entity: &Entity) -> Option<String> {
    let sources = entity.get("sources")?.as_array()?;
    sources
        .is_empty()
        .then(|| format!("'sources' must name at least one; {ANY_SOURCE} stands for all"))
}
