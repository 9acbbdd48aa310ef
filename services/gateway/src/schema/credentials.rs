//! What consumers identify themselves by.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::build::{Input, generated};
use super::field::{Default, Field};
use super::rules;
use super::table::{Entity, Schema};

const fn consumer() -> Field {
    Field::foreign("consumer", "consumers").required().cascade()
}

pub(super) static KEY_AUTH: Schema = Schema {
    kind: "keyauth_credentials",
    path: "key-auths",
    nested_path: Some("key-auth"),
    endpoint_key: Some("key"),
    fields: &[
        Field::id(),
        Field::created_at(),
        consumer(),
        Field::string("key").unique().generated().private(),
        Field::integer("ttl").between(0, MAX_TTL),
        Field::tags(),
    ],
    ..Schema::PLAIN
};

pub(crate) static BASIC_AUTH: Schema = Schema {
    kind: "basicauth_credentials",
    path: "basic-auths",
    nested_path: Some("basic-auth"),
    endpoint_key: Some("username"),
    fields: &[
        Field::id(),
        Field::created_at(),
        consumer(),
        Field::string("username").unique().required(),
        Field::string("password").required().private(),
        Field::tags(),
    ],
    ..Schema::PLAIN
};

pub(super) static ACLS: Schema = Schema {
    kind: "acls",
    path: "acls",
    fields: &[
        Field::id(),
        Field::created_at(),
        consumer(),
        Field::string("group").required(),
        Field::tags(),
    ],
    unique_together: &["consumer", "group"],
    ..Schema::PLAIN
};

pub(super) static JWT: Schema = Schema {
    kind: "jwt_secrets",
    path: "jwts",
    nested_path: Some("jwt"),
    endpoint_key: Some("key"),
    fields: &[
        Field::id(),
        Field::created_at(),
        consumer(),
        Field::string("key").unique().generated().required(),
        Field::string("secret").generated().private(),
        Field::string("rsa_public_key"),
        Field::string("algorithm")
            .default(Default::Text("HS256"))
            .one_of(&[
                "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512",
                "PS256", "PS384", "PS512", "EdDSA",
            ]),
        Field::tags(),
    ],
    checks: &[has_a_public_key],
    ..Schema::PLAIN
};

pub(super) static HMAC_AUTH: Schema = Schema {
    kind: "hmacauth_credentials",
    path: "hmac-auths",
    nested_path: Some("hmac-auth"),
    endpoint_key: Some("username"),
    fields: &[
        Field::id(),
        Field::created_at(),
        consumer(),
        Field::string("username").unique().required(),
        Field::string("secret").generated().private(),
        Field::tags(),
    ],
    ..Schema::PLAIN
};

pub(super) static OAUTH2: Schema = Schema {
    kind: "oauth2_credentials",
    path: "oauth2",
    endpoint_key: Some("client_id"),
    fields: &[
        Field::id(),
        Field::created_at(),
        consumer(),
        Field::string("name").required(),
        Field::string("client_id").unique().generated(),
        Field::string("client_secret").generated().private(),
        Field::boolean("hash_secret")
            .required()
            .default(Default::Boolean(false)),
        Field::set("redirect_uris", &REDIRECT),
        Field::string("client_type")
            .required()
            .default(Default::Text("confidential"))
            .one_of(&["confidential", "public"]),
        Field::tags(),
    ],
    ..Schema::PLAIN
};

static REDIRECT: Field = Field::string("").rule(rules::redirect_uri);
/// In seconds.
const MAX_TTL: i64 = 100_000_000;

/// A password as it is stored and shown: nobody needs it again.
pub(crate) fn hide_password(entity: &mut Entity, old: Option<&Entity>) {
    let text = |entity: &Entity, name: &str| Some(entity.get(name)?.as_str()?.to_owned());
    let Some(password) = text(entity, "password") else {
        return;
    };
    if old.and_then(|old| text(old, "password")).as_ref() == Some(&password) {
        return;
    }
    let consumer = entity.get("consumer").and_then(|of| of.get("id")?.as_str());
    let digest = Sha256::digest([password.as_str(), consumer.unwrap_or_default()].concat());
    let hidden: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    entity.insert("password".to_owned(), hidden.into());
}

pub(crate) const CLIENT_SECRET: &str = "client_secret";

/// Whether a client's secret is stored as its digest.
pub(crate) fn is_hashed(schema: &Schema, entity: &Entity) -> bool {
    schema.kind == OAUTH2.kind && entity.get("hash_secret") == Some(&Value::Bool(true))
}

/// A secret that is to be stored as its digest, if it is another one than before.
pub(crate) fn secret_to_hash<'a>(
    schema: &Schema,
    entity: &'a Entity,
    old: Option<&Entity>,
) -> Option<&'a str> {
    let secret = entity
        .get(CLIENT_SECRET)
        .filter(|_| is_hashed(schema, entity))?;
    let was_hashed = old.is_some_and(|old| is_hashed(schema, old));
    let is_known = was_hashed && old.and_then(|old| old.get(CLIENT_SECRET)) == Some(secret);
    secret.as_str().filter(|_| !is_known)
}

/// Makes up a secret that is shown once, if none is given.
pub(crate) fn make_secret(schema: &Schema, stored: &Entity, input: &mut Input) {
    let given = input.values.get("hash_secret");
    let flag = given.or_else(|| stored.get("hash_secret"));
    let is_hashed = flag.is_some_and(|flag| flag == true || flag == "true");
    let is_given = input
        .values
        .get(CLIENT_SECRET)
        .is_some_and(|secret| !secret.is_null() && secret != "");
    if schema.kind == OAUTH2.kind && is_hashed && !is_given {
        input
            .values
            .insert(CLIENT_SECRET.to_owned(), generated().into());
    }
}

fn has_a_public_key(entity: &Entity) -> Option<String> {
    let algorithm = entity.get("algorithm")?.as_str()?;
    let asymmetric = !algorithm.starts_with("HS");
    (asymmetric && !entity.contains_key("rsa_public_key"))
        .then(|| "failed conditional validation given value of field 'algorithm'".to_owned())
}
