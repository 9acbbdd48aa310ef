//! Authorities that hooks trust.

use hookline_shared::certificate;
use hookline_shared::subject::AUTHORITY_KIND;
use serde_json::Value;

use super::field::Field;
use super::table::{Entity, Schema};
use super::violations::Violations;

pub(super) static TABLE: Schema = Schema {
    kind: AUTHORITY_KIND,
    path: "ca_certificates",
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("cert").required().rule(authority),
        Field::string("cert_digest").unique(),
        Field::tags(),
    ],
    shorthand: Some(add_digest),
    ..Schema::PLAIN
};

fn authority(value: &Value) -> Result<(), String> {
    let authority = certificate::authority(value.as_str().unwrap_or_default());
    authority.map(drop).map_err(|error| error.to_string())
}

/// It follows from the certificate, whatever is given.
fn add_digest(values: &mut Entity, _: &mut Violations) {
    values.shift_remove("cert_digest");
    let certificate = values.get("cert").and_then(Value::as_str);
    if let Some(Ok(certificate)) = certificate.map(certificate::authority) {
        let digest = certificate::digest(&certificate);
        values.insert("cert_digest".to_owned(), digest.into());
    }
}
