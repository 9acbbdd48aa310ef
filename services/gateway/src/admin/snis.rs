//! The names that a certificate is for: `snis` in its requests and answers stands for the entities of that kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::collections::Collection;
use crate::access::Action;
use crate::error::ApiError;
use crate::schema::{Entity, Input, Schema, Violations};
use crate::store::Row;

const FIELD: &str = "certificate";

/// Takes the names out of a request, if it has any.
pub(super) fn take(input: &mut Input) -> Result<Option<BTreeSet<String>>, ApiError> {
    let wrong = || ApiError::Schema(Violations::of("snis", "expected a set"));
    match input.values.shift_remove("snis") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(BTreeSet::new())),
        Some(Value::String(one)) if input.form => Ok(Some(BTreeSet::from([one]))),
        Some(Value::Array(names)) => {
            let names = names.into_iter().map(|name| match name {
                Value::String(name) => Ok(name),
                _ => Err(wrong()),
            });
            names.collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(wrong()),
    }
}

impl Collection<'_> {
    /// Of certificates: their names.
    fn snis(&self) -> Option<Collection<'_>> {
        let snis = Schema::snis();
        let is_it = snis.references().any(|of| of.kind == self.schema.kind);
        is_it.then(|| {
            Collection::new(
                self.store,
                snis,
                self.place.clone(),
                Arc::clone(&self.caller),
            )
        })
    }

    fn snis_of(&self, snis: &Collection<'_>, certificate: &str) -> Vec<Arc<Row>> {
        let view = self.store.view();
        view.children(snis.schema, &self.place.workspace, FIELD, certificate)
    }

    /// What answers say beside a certificate's own fields.
    pub(super) fn add_snis(&self, certificate: &Entity, shown: &mut Value) {
        let Some(snis) = self.snis() else {
            return;
        };
        let id = certificate.get("id").and_then(Value::as_str);
        let mut rows = self.snis_of(&snis, id.unwrap_or_default());
        rows.retain(|row| snis.shows(row));
        let names: BTreeSet<_> = rows.iter().filter_map(|row| row.name()).collect();
        shown["snis"] = json!(names);
    }

    /// Whether all names are free, or the certificate's own.
    pub(super) async fn check_snis(
        &self,
        certificate: Option<&str>,
        wanted: &BTreeSet<String>,
    ) -> Result<(), ApiError> {
        let Some(snis) = self.snis() else {
            return Ok(());
        };
        for row in self.snis_of(&snis, certificate.unwrap_or_default()) {
            if !wanted.contains(row.name().unwrap_or_default()) {
                snis.check_forbidden(&row.entity, Action::Delete)?;
            }
        }
        for name in wanted {
            // Before anything is stored.
            snis.schema
                .create(sni(name, &uuid::Uuid::nil().to_string()))?;
            let row = match snis.find(name).await {
                Err(ApiError::NotFound) => {
                    let of = certificate.unwrap_or_default();
                    snis.check_forbidden(&sni(name, of).values, Action::Create)?;
                    continue;
                }
                row => row?,
            };
            let of = row.entity.get(FIELD).and_then(|of| of.get("id")?.as_str());
            if of != certificate {
                let says = format!(
                    "{name} already associated with existing certificate '{}'",
                    of.unwrap_or_default()
                );
                return Err(Violations::of("snis", says).into());
            }
        }
        Ok(())
    }

    /// Makes the names those of a certificate, and no others.
    pub(super) async fn set_snis(
        &self,
        certificate: &str,
        wanted: &BTreeSet<String>,
    ) -> Result<(), ApiError> {
        let Some(snis) = self.snis() else {
            return Ok(());
        };
        let mut missing = wanted.clone();
        for row in self.snis_of(&snis, certificate) {
            let name = row.name().unwrap_or_default();
            if !missing.remove(name) {
                snis.delete(&row.id).await?;
            }
        }
        for name in missing {
            snis.insert(sni(&name, certificate), Entity::new(), false)
                .await?;
        }
        Ok(())
    }
}

fn sni(name: &str, certificate: &str) -> Input {
    let values = json!({ "name": name, FIELD: { "id": certificate } });
    Input {
        values: values.as_object().cloned().unwrap_or_default(),
        form: false,
    }
}
