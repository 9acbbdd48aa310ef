//! What a table says about one field. The builders are `const`, so that a table is a static.

use serde_json::{Map, Value, json};

/// A rule beyond the type: what is wrong with a value, if anything is.
pub(super) type Rule = fn(&Value) -> Result<(), String>;

/// One field of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Whether a value must be there in the end.
    pub required: bool,
    /// What it is when nothing is given.
    pub default: Option<Default>,
    /// Whether its values are unique within a workspace.
    pub unique: bool,
    /// Whether the service sets it.
    pub auto: Option<Auto>,
    /// Whether it stays as it was created.
    pub immutable: bool,
    /// The only texts or numbers it may be; empty: any.
    pub one_of: &'static [&'static str],
    /// Lowest and highest number.
    pub between: Option<(i64, i64)>,
    /// A rule beyond the type.
    pub rule: Option<Rule>,
    /// Who may see its values.
    pub visibility: Visibility,
}

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Type {
    /// Text, not empty.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A list.
    Array(&'static Field),
    /// A list of different values.
    Set(&'static Field),
    /// Values by free names.
    Map(&'static Field),
    /// Values by the names in a table of their own.
    Record(&'static [Field]),
    /// A record whose fields depend on another field.
    Polymorphic(&'static Variants),
    /// A reference to an entity of the named kind: `{"id": ...}`.
    Foreign(&'static str),
}

/// The forms of a polymorphic record.
#[derive(Debug)]
pub(crate) struct Variants {
    /// The field of the entity that selects the form.
    pub selector: &'static str,
    /// The forms by the selector's value.
    pub forms: &'static [(&'static str, &'static [Field])],
}

impl Variants {
    /// The fields of one form.
    #[must_use]
    pub(crate) fn form(&self, selected: &str) -> Option<&'static [Field]> {
        let form = self.forms.iter().find(|(name, _)| *name == selected);
        form.map(|(_, fields)| *fields)
    }
}

/// A default value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Default {
    /// A number.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
    /// A text.
    Text(&'static str),
    /// A list of texts.
    Texts(&'static [&'static str]),
    /// An empty map.
    EmptyMap,
}

impl Default {
    /// The value itself.
    #[must_use]
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Integer(number) => json!(number),
            Self::Boolean(flag) => json!(flag),
            Self::Text(text) => json!(text),
            Self::Texts(texts) => json!(texts),
            Self::EmptyMap => Value::Object(Map::new()),
        }
    }
}

/// What the service sets by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auto {
    /// A UUID at creation.
    Id,
    /// Unix seconds at creation.
    CreatedAt,
    /// Unix seconds at every write.
    UpdatedAt,
}

/// Who may see a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Everyone.
    Public,
    /// The admin, but no event.
    Private,
    /// Nobody: it can only be written.
    Secret,
}

impl Field {
    const fn new(name: &'static str, kind: Type) -> Self {
        Self {
            name,
            kind,
            required: false,
            default: None,
            unique: false,
            auto: None,
            immutable: false,
            one_of: &[],
            between: None,
            rule: None,
            visibility: Visibility::Public,
        }
    }

    /// The `id` that every entity has.
    pub(crate) const fn id() -> Self {
        let field = Self::new("id", Type::String)
            .rule(super::rules::uuid)
            .immutable();
        Self {
            auto: Some(Auto::Id),
            ..field
        }
    }

    /// When the entity was made, in Unix seconds.
    pub(crate) const fn created_at() -> Self {
        let field = Self::integer("created_at").between(0, MAX_TIMESTAMP);
        Self {
            auto: Some(Auto::CreatedAt),
            ..field
        }
    }

    /// When the entity was last written, in Unix seconds.
    pub(crate) const fn updated_at() -> Self {
        let field = Self::integer("updated_at").between(0, MAX_TIMESTAMP);
        Self {
            auto: Some(Auto::UpdatedAt),
            ..field
        }
    }

    /// The usual set of tags.
    pub(crate) const fn tags() -> Self {
        Self::new("tags", Type::Set(&TAG))
    }

    /// A text.
    pub(crate) const fn string(name: &'static str) -> Self {
        Self::new(name, Type::String)
    }

    /// A whole number.
    pub(crate) const fn integer(name: &'static str) -> Self {
        Self::new(name, Type::Integer)
    }

    /// A number.
    pub(crate) const fn number(name: &'static str) -> Self {
        Self::new(name, Type::Number)
    }

    /// A truth value.
    pub(crate) const fn boolean(name: &'static str) -> Self {
        Self::new(name, Type::Boolean)
    }

    /// A list of `element`.
    pub(crate) const fn array(name: &'static str, element: &'static Field) -> Self {
        Self::new(name, Type::Array(element))
    }

    /// A list of different `element`s.
    pub(crate) const fn set(name: &'static str, element: &'static Field) -> Self {
        Self::new(name, Type::Set(element))
    }

    /// Values of the type of `element` by free names.
    pub(crate) const fn map(name: &'static str, element: &'static Field) -> Self {
        Self::new(name, Type::Map(element))
    }

    /// A record.
    pub(crate) const fn record(name: &'static str, fields: &'static [Field]) -> Self {
        Self::new(name, Type::Record(fields))
    }

    /// A record whose form depends on another field. It is always there.
    pub(crate) const fn polymorphic(name: &'static str, variants: &'static Variants) -> Self {
        Self::new(name, Type::Polymorphic(variants)).required()
    }

    /// A reference to an entity of `kind`.
    pub(crate) const fn foreign(name: &'static str, kind: &'static str) -> Self {
        Self::new(name, Type::Foreign(kind))
    }

    /// A value must be there.
    pub(crate) const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    /// Its values are unique within a workspace.
    pub(crate) const fn unique(self) -> Self {
        Self {
            unique: true,
            ..self
        }
    }

    /// It stays as it was created.
    pub(crate) const fn immutable(self) -> Self {
        Self {
            immutable: true,
            ..self
        }
    }

    /// What it is when nothing is given.
    pub(crate) const fn default(self, default: Default) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }

    /// The only values it may have, as text.
    pub(crate) const fn one_of(self, one_of: &'static [&'static str]) -> Self {
        Self { one_of, ..self }
    }

    /// Lowest and highest number.
    pub(crate) const fn between(self, low: i64, high: i64) -> Self {
        Self {
            between: Some((low, high)),
            ..self
        }
    }

    /// A rule beyond the type.
    pub(crate) const fn rule(self, rule: Rule) -> Self {
        Self {
            rule: Some(rule),
            ..self
        }
    }

    /// Its values are in no event.
    pub(crate) const fn private(self) -> Self {
        Self {
            visibility: Visibility::Private,
            ..self
        }
    }

    /// Its value shows nowhere.
    pub(crate) const fn secret(self) -> Self {
        Self {
            visibility: Visibility::Secret,
            ..self
        }
    }

    /// The fields of a record; `form` has those of the polymorphic one.
    pub(crate) fn record_fields(&self, form: &'static [Field]) -> Option<&'static [Field]> {
        match self.kind {
            Type::Record(fields) => Some(fields),
            Type::Polymorphic(_) => Some(form),
            _ => None,
        }
    }
}

/// The year 9999, which every client can still print.
const MAX_TIMESTAMP: i64 = 253_402_300_799;

/// Any text, as the element of a list or map.
pub(super) static TEXT: Field = Field::string("");
static TAG: Field = Field::string("").rule(super::rules::tag);
