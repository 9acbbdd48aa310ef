//! Certificates with their private keys, which hooks present to receivers.

use hookline_shared::certificate::{self, Error};
use hookline_shared::subject::CERTIFICATE_KIND;
use hookline_shared::vault;
use serde_json::Value;

use super::field::Field;
use super::table::{Entity, Schema};

pub(super) static TABLE: Schema = Schema {
    kind: CERTIFICATE_KIND,
    path: "certificates",
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("cert").required().rule(chain),
        Field::string("key").required().rule(key).private_key(),
        Field::string("cert_alt").rule(chain),
        Field::string("key_alt").rule(key).private_key(),
        Field::tags(),
    ],
    checks: &[fit_together, have_both],
    ..Schema::PLAIN
};

pub(super) fn chain(value: &Value) -> Result<(), String> {
    let chain = certificate::chain(value.as_str().unwrap_or_default());
    chain.map(drop).map_err(|error| error.to_string())
}

fn key(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    if vault::is_reference(text) {
        return vault::check(text).map_err(|error| error.to_string());
    }
    let key = certificate::key(text);
    key.map(drop).map_err(|error| error.to_string())
}

fn fit_together(entity: &Entity) -> Option<String> {
    let pairs = [("cert", "key"), ("cert_alt", "key_alt")];
    let wrong = pairs.iter().find_map(|(cert, key)| {
        let (cert, key) = (entity.get(*cert)?.as_str()?, entity.get(*key)?.as_str()?);
        // Dispatchers see what the vault has.
        let known = !vault::is_reference(key);
        known.then(|| certificate::with_key(cert, key).err())?
    });
    wrong.map(|error: Error| error.to_string())
}

fn have_both(entity: &Entity) -> Option<String> {
    let alone = entity.contains_key("cert_alt") != entity.contains_key("key_alt");
    alone.then(|| "all or none of these fields must be set: 'cert_alt', 'key_alt'".to_owned())
}
