//! Keys as JSON Web Keys or in PEM, and sets of them.

use hookline_shared::certificate;
use serde_json::Value;

use super::field::Field;
use super::rules;
use super::table::{Entity, Schema};

pub(super) static SETS: Schema = Schema {
    kind: "key_sets",
    path: "key-sets",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::string("name").unique().rule(rules::name),
        Field::tags(),
        Field::created_at(),
        Field::updated_at(),
    ],
    ..Schema::PLAIN
};

const PEM: &[Field] = &[
    Field::string("private_key").rule(private_key).private_key(),
    Field::string("public_key").rule(public_key),
];

pub(super) static KEYS: Schema = Schema {
    kind: "keys",
    path: "keys",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::foreign("set", "key_sets").cascade(),
        Field::string("name").unique().rule(rules::name),
        Field::string("kid").required(),
        Field::string("jwk").rule(jwk).private_key(),
        Field::record("pem", PEM),
        Field::tags(),
        Field::created_at(),
        Field::updated_at(),
    ],
    unique_together: &["kid", "set"],
    checks: &[has_one_form, has_one_key, names_its_own_id],
    ..Schema::PLAIN
};

fn jwk(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let parsed = parsed.filter(|parsed| parsed.get("kty").is_some_and(Value::is_string));
    parsed
        .map(drop)
        .ok_or_else(|| "could not load JWK".to_owned())
}

fn has_one_form(entity: &Entity) -> Option<String> {
    match (entity.contains_key("jwk"), entity.contains_key("pem")) {
        (true, true) => Some("only one of these fields must be non-empty: 'jwk', 'pem'".to_owned()),
        (false, false) => {
            Some("at least one of these fields must be non-empty: 'jwk', 'pem'".to_owned())
        }
        _ => None,
    }
}

fn has_one_key(entity: &Entity) -> Option<String> {
    let pem = entity.get("pem")?.as_object()?;
    pem.is_empty().then(|| {
        "at least one of these fields must be non-empty: 'pem.private_key', 'pem.public_key'"
            .to_owned()
    })
}

fn private_key(value: &Value) -> Result<(), String> {
    let key = certificate::key(value.as_str().unwrap_or_default());
    key.map(drop)
        .map_err(|_| "could not load private key".to_owned())
}

fn public_key(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default().trim();
    let is_key = |label: &str| {
        let begin = text.strip_prefix(&format!("-----BEGIN {label}-----"));
        begin.is_some_and(|rest| rest.ends_with(&format!("-----END {label}-----")))
    };
    match is_key("PUBLIC KEY") || is_key("RSA PUBLIC KEY") {
        true => Ok(()),
        false => Err("could not load public key".to_owned()),
    }
}

fn names_its_own_id(entity: &Entity) -> Option<String> {
    let jwk: Value = serde_json::from_str(entity.get("jwk")?.as_str()?).ok()?;
    (jwk.get("kid") != entity.get("kid"))
        .then(|| "kid in jwk.kid must be equal to keys.kid".to_owned())
}
