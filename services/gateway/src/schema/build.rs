//! Turns input into an entity: infers the types of forms, merges PATCH, fills in defaults and checks
//! everything. The result has no nulls and is stored as it is.

use serde_json::{Map, Value};
use uuid::Uuid;

use hookline_shared::hook::REDACTED;

use super::check::Checker;
use super::field::{Auto, Field, Type, Visibility};
use super::infer;
use super::table::{Entity, Schema};
use super::violations::Violations;

const MISSING: &str = "required field missing";

#[derive(Debug, Clone, Default)]
pub(crate) struct Input {
    pub values: Entity,
    /// Whether it was a form, where every value is text.
    pub form: bool,
}

impl Schema {
    pub(crate) fn create(&self, input: Input) -> Result<Entity, Violations> {
        self.build(input, None, false)
    }

    /// PATCH: records merge, lists and maps are replaced.
    pub(crate) fn update(&self, current: &Entity, input: Input) -> Result<Entity, Violations> {
        self.build(input, Some(current), true)
    }

    /// PUT: keeps only id and time of creation.
    pub(crate) fn replace(&self, current: &Entity, input: Input) -> Result<Entity, Violations> {
        self.build(input, Some(current), false)
    }

    /// As it would be stored, whether or not it could be, without what is made up for each entity.
    pub(crate) fn normalized(&self, input: Input) -> Option<Entity> {
        let mut values = input.values;
        let mut ignored = Violations::default();
        let form = self.select_form(&values, None).ok()?;
        if let Some(shorthand) = self.shorthand {
            shorthand(&mut values, &mut ignored);
        }
        narrow_references(self.fields, &mut values);
        lower_ids(self.fields, &mut values);
        fill_defaults(self.fields, form, &mut values, false);
        Checker::new(&mut ignored, form).record(self.fields, &mut values);
        strip_nulls(&mut values);
        Some(values)
    }

    /// Takes what is made up away from what is shown of an entity.
    pub(crate) fn remove_generated(&self, entity: &Entity, shown: &mut Entity) {
        remove_generated(self.fields, self.form_of(entity), shown);
    }

    /// Gives input the stored values of what would be made up otherwise.
    pub(crate) fn keep_generated(&self, current: &Entity, values: &mut Entity) {
        keep_generated(self.fields, self.form_of(current), current, values);
    }

    fn build(
        &self,
        input: Input,
        current: Option<&Entity>,
        merge: bool,
    ) -> Result<Entity, Violations> {
        let mut values = input.values;
        let merged = current.filter(|_| merge);
        let form = self.select_form(&values, merged)?;
        let mut violations = Violations::default();
        self.keep_internal(current, &mut values, &mut violations);
        if input.form {
            infer::record(self.fields, form, &mut values);
        }
        if let Some(shorthand) = self.shorthand {
            shorthand(&mut values, &mut violations);
        }
        narrow_references(self.fields, &mut values);
        lower_ids(self.fields, &mut values);
        if let Some(current) = merged {
            let base = self.without_stale_config(current, &values);
            values = merge_record(self.fields, form, base, values);
        }
        keep_secrets(
            self.fields,
            form,
            current,
            &mut values,
            &mut Vec::new(),
            &mut violations,
        );
        if let (Some(carry_over), Some(current)) = (self.carry_over, current) {
            carry_over(current, &mut values);
        }
        if let Some(current) = current {
            self.keep_immutable(current, &mut values, &mut violations);
        }
        self.fill_autos(current, &mut values);
        fill_defaults(self.fields, form, &mut values, true);
        Checker::new(&mut violations, form).record(self.fields, &mut values);
        if !violations.is_empty() {
            return Err(violations);
        }
        strip_nulls(&mut values);
        let entity = values;
        for message in self.checks.iter().filter_map(|check| check(&entity)) {
            violations.add_entity(message);
        }
        if let (true, Some(check)) = (violations.is_empty(), self.deep_check) {
            check(&entity, &mut violations);
        }
        if violations.is_empty() {
            Ok(entity)
        } else {
            Err(violations)
        }
    }

    /// The fields of the polymorphic record. As in Kong, the field that selects them is checked first
    /// and alone.
    fn select_form(
        &self,
        values: &Entity,
        merged: Option<&Entity>,
    ) -> Result<&'static [Field], Violations> {
        let Some(variants) = self.variants() else {
            return Ok(&[]);
        };
        let selector = variants.selector;
        let stored = || merged.and_then(|current| current.get(selector));
        match values.get(selector).or_else(stored) {
            None | Some(Value::Null) => Err(Violations::of(selector, MISSING)),
            Some(Value::String(name)) if name.is_empty() => Err(Violations::of(selector, MISSING)),
            Some(Value::String(name)) => variants
                .form(name)
                .ok_or_else(|| Violations::of(selector, variants.unknown.replace("{}", name))),
            Some(_) => Err(Violations::of(selector, "expected a string")),
        }
    }

    /// The current entity, without its polymorphic record if the input selects another form.
    fn without_stale_config(&self, current: &Entity, values: &Entity) -> Entity {
        let mut base = current.clone();
        for field in self.fields {
            if let Type::Polymorphic(variants) = field.kind
                && let Some(selected) = values.get(variants.selector)
                && current.get(variants.selector) != Some(selected)
            {
                base.shift_remove(field.name);
            }
        }
        base
    }

    /// What the service sets is neither given nor taken away by input.
    fn keep_internal(&self, current: Option<&Entity>, values: &mut Entity, found: &mut Violations) {
        let is_internal = |field: &&Field| field.visibility == Visibility::Internal;
        for field in self.fields.iter().filter(is_internal) {
            if values.shift_remove(field.name).is_some() {
                found.add(&[field.name], "unknown field");
            }
            if let Some(stored) = current.and_then(|current| current.get(field.name)) {
                values.insert(field.name.to_owned(), stored.clone());
            }
        }
    }

    fn keep_immutable(&self, current: &Entity, values: &mut Entity, found: &mut Violations) {
        for field in self.fields {
            let Some(stored) = current.get(field.name) else {
                continue;
            };
            let stays = matches!(field.auto, Some(Auto::Id | Auto::CreatedAt));
            match values.get(field.name) {
                None | Some(Value::Null) if stays => {
                    values.insert(field.name.to_owned(), stored.clone());
                }
                Some(given) if field.immutable && given != stored => {
                    found.add(&[field.name], "immutable field cannot be updated");
                }
                _ => {}
            }
        }
    }

    fn fill_autos(&self, current: Option<&Entity>, values: &mut Entity) {
        for field in self.fields {
            let given = values.get(field.name).is_some_and(|value| !value.is_null());
            let value = match field.auto {
                Some(Auto::Id) if !given => Value::from(Uuid::new_v4().to_string()),
                Some(Auto::CreatedAt) if !given => Value::from(now()),
                Some(Auto::UpdatedAt) if !given || current.is_some() => Value::from(now()),
                _ => continue,
            };
            values.insert(field.name.to_owned(), value);
        }
    }
}

/// Of a whole entity that stands for a reference, only its id counts.
fn narrow_references(fields: &[Field], values: &mut Entity) {
    for field in fields {
        if let (Type::Foreign(_), Some(Value::Object(of))) =
            (field.kind, values.get_mut(field.name))
            && of.get("id").is_some_and(Value::is_string)
        {
            of.retain(|name, _| name == "id");
        }
    }
}

/// Ids are stored and looked up in lower case.
fn lower_ids(fields: &[Field], values: &mut Entity) {
    for field in fields {
        let id = match field.kind {
            Type::Foreign(_) => values
                .get_mut(field.name)
                .and_then(|value| value.get_mut("id")),
            _ if matches!(field.auto, Some(Auto::Id)) => values.get_mut(field.name),
            _ => None,
        };
        if let Some(Value::String(id)) = id {
            id.make_ascii_lowercase();
        }
    }
}

fn merge_record(
    fields: &[Field],
    form: &'static [Field],
    mut base: Entity,
    values: Entity,
) -> Entity {
    for (name, value) in values {
        let field = fields.iter().find(|field| field.name == name);
        let inner = field.and_then(|field| field.record_fields(form));
        let value = match (inner, base.get_mut(&name), value) {
            (Some(inner), Some(Value::Object(old)), Value::Object(new)) => {
                Value::Object(merge_record(inner, &[], std::mem::take(old), new))
            }
            (_, _, value) => value,
        };
        base.insert(name, value);
    }
    base
}

/// A secret sent back in its redacted form keeps its stored value.
fn keep_secrets(
    fields: &[Field],
    form: &'static [Field],
    current: Option<&Entity>,
    values: &mut Entity,
    path: &mut Vec<&'static str>,
    violations: &mut Violations,
) {
    for field in fields {
        let Some(value) = values.get_mut(field.name) else {
            continue;
        };
        let stored = current.and_then(|current| current.get(field.name));
        path.push(field.name);
        if field.is_secret() && value.as_str() == Some(REDACTED) {
            match stored {
                Some(stored) => *value = stored.clone(),
                None => violations.add(path, "there is no stored value to keep"),
            }
        } else if let (Some(inner), Value::Object(map)) = (field.record_fields(form), value) {
            let stored = stored.and_then(Value::as_object);
            keep_secrets(inner, &[], stored, map, path, violations);
        }
        path.pop();
    }
}

fn keep_generated(fields: &[Field], form: &'static [Field], current: &Entity, values: &mut Entity) {
    for field in fields {
        let Some(stored) = current.get(field.name) else {
            continue;
        };
        match (values.get_mut(field.name), field.record_fields(form)) {
            (None | Some(Value::Null), None) if field.generated => {
                values.insert(field.name.to_owned(), stored.clone());
            }
            (Some(Value::Object(given)), Some(inner)) => {
                if let Value::Object(stored) = stored {
                    keep_generated(inner, &[], stored, given);
                }
            }
            _ => {}
        }
    }
}

fn remove_generated(fields: &[Field], form: &'static [Field], shown: &mut Entity) {
    for field in fields {
        if field.generated {
            shown.shift_remove(field.name);
        } else if let (Some(inner), Some(Value::Object(map))) =
            (field.record_fields(form), shown.get_mut(field.name))
        {
            remove_generated(inner, &[], map);
        }
    }
}

fn fill_defaults(fields: &[Field], form: &'static [Field], values: &mut Entity, generate: bool) {
    for field in fields {
        let inner = field.record_fields(form);
        let unset = values.get(field.name).is_none_or(Value::is_null);
        if unset {
            if field.generated && generate {
                values.insert(field.name.to_owned(), generated().into());
            } else if let Some(default) = &field.default {
                values.insert(field.name.to_owned(), default.value());
            } else if inner.is_some() && field.required {
                values.insert(field.name.to_owned(), Value::Object(Map::new()));
            }
        }
        if let (Some(inner), Some(Value::Object(map))) = (inner, values.get_mut(field.name)) {
            fill_defaults(inner, &[], map, generate);
        }
    }
}

fn strip_nulls(entity: &mut Entity) {
    entity.retain(|_, value| !value.is_null());
    for value in entity.values_mut() {
        if let Value::Object(inner) = value {
            strip_nulls(inner);
        }
    }
}

/// A random text of 32 letters and digits.
pub(super) fn generated() -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = [0_u8; 64];
    getrandom::fill(&mut random).expect("the system has random bytes");
    // Bytes above the last multiple of 62 would favour some letters.
    let fair = random.iter().filter(|byte| **byte < 248).take(32);
    fair.map(|byte| char::from(LETTERS[usize::from(byte % 62)]))
        .collect()
}

fn now() -> i64 {
    hookline_shared::clock::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests;
