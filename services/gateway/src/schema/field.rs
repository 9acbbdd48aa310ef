//! Fields of a table. The builders are `const`, so that a table can be a static.

use serde_json::{Map, Value, json};

/// A rule beyond the type; the error is the violation.
pub(super) type Rule = fn(&Value) -> Result<(), String>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub name: &'static str,
    pub kind: Type,
    /// Checked after defaults are filled in.
    pub required: bool,
    pub default: Option<Default>,
    pub unique: Option<Within>,
    pub auto: Option<Auto>,
    pub immutable: bool,
    /// Allowed texts or numbers; empty allows all.
    pub one_of: &'static [&'static str],
    /// Inclusive.
    pub between: Option<(i64, i64)>,
    pub rule: Option<Rule>,
    /// A token, of which the digest is stored.
    pub hashed: bool,
    /// A random text unless one is given.
    pub generated: bool,
    /// Of a reference: an entity is deleted with the one that it refers to.
    pub cascades: bool,
    pub visibility: Visibility,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Type {
    /// Not empty.
    String,
    Integer,
    Number,
    Boolean,
    Array(&'static Field),
    /// A list without duplicates.
    Set(&'static Field),
    /// An object with arbitrary keys.
    Map(&'static Field),
    /// An object with these fields.
    Record(&'static [Field]),
    /// A record whose fields depend on the value of another field.
    Polymorphic(&'static Variants),
    /// A reference to an entity of this kind: `{"id": ...}`.
    Foreign(&'static str),
}

/// The forms of a polymorphic record.
#[derive(Debug)]
pub(crate) struct Variants {
    /// The field whose value selects the form.
    pub selector: &'static str,
    /// What is said of a value that selects none, with `{}` for it.
    pub unknown: &'static str,
    pub forms: fn() -> &'static [Form],
}

/// A record's fields by the selector's value.
pub(crate) type Form = (&'static str, &'static [Field]);

impl Variants {
    pub(crate) fn form(&self, selected: &str) -> Option<&'static [Field]> {
        let form = (self.forms)().iter().find(|(name, _)| *name == selected);
        form.map(|(_, fields)| *fields)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Default {
    Integer(i64),
    Boolean(bool),
    Text(&'static str),
    Number(f64),
    Texts(&'static [&'static str]),
    Integers(&'static [i64]),
    EmptyMap,
}

impl Default {
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Integer(number) => json!(number),
            Self::Boolean(flag) => json!(flag),
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
            Self::Texts(texts) => json!(texts),
            Self::Integers(numbers) => json!(numbers),
            Self::EmptyMap => Value::Object(Map::new()),
        }
    }
}

/// Values that the service sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auto {
    /// A UUID at creation.
    Id,
    /// Unix seconds at creation.
    CreatedAt,
    /// Unix seconds at every write.
    UpdatedAt,
}

/// Where no two entities of a kind have the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    Workspace,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility {
    Public,
    /// In responses, but not in events.
    Private,
    /// A URL, of which events show scheme and host.
    Address,
    /// In responses, and events do not have it at all.
    NotInEvents,
    /// Write-only.
    Secret,
    /// Write-only, unless [`show_private_keys`](super::show_private_keys).
    PrivateKey,
    /// Neither in input, responses nor events: the service sets it.
    Internal,
}

impl Field {
    const fn new(name: &'static str, kind: Type) -> Self {
        Self {
            name,
            kind,
            required: false,
            default: None,
            unique: None,
            auto: None,
            immutable: false,
            one_of: &[],
            between: None,
            rule: None,
            hashed: false,
            generated: false,
            cascades: false,
            visibility: Visibility::Public,
        }
    }

    pub(crate) const fn id() -> Self {
        let field = Self::new("id", Type::String)
            .rule(super::rules::uuid)
            .immutable();
        Self {
            auto: Some(Auto::Id),
            ..field
        }
    }

    pub(crate) const fn created_at() -> Self {
        let field = Self::integer("created_at").between(0, MAX_TIMESTAMP);
        Self {
            auto: Some(Auto::CreatedAt),
            ..field
        }
    }

    pub(crate) const fn updated_at() -> Self {
        let field = Self::integer("updated_at").between(0, MAX_TIMESTAMP);
        Self {
            auto: Some(Auto::UpdatedAt),
            ..field
        }
    }

    /// In Unix seconds.
    pub(crate) const fn timestamp(name: &'static str) -> Self {
        Self::integer(name).between(0, MAX_TIMESTAMP)
    }

    /// In Unix seconds, when a token stops to let its user in.
    pub(crate) const fn expires_at() -> Self {
        Self::timestamp("expires_at")
    }

    pub(crate) const fn tags() -> Self {
        Self::new("tags", Type::Set(&TAG))
    }

    pub(crate) const fn string(name: &'static str) -> Self {
        Self::new(name, Type::String)
    }

    pub(crate) const fn integer(name: &'static str) -> Self {
        Self::new(name, Type::Integer)
    }

    pub(crate) const fn number(name: &'static str) -> Self {
        Self::new(name, Type::Number)
    }

    pub(crate) const fn boolean(name: &'static str) -> Self {
        Self::new(name, Type::Boolean)
    }

    pub(crate) const fn array(name: &'static str, element: &'static Field) -> Self {
        Self::new(name, Type::Array(element))
    }

    pub(crate) const fn set(name: &'static str, element: &'static Field) -> Self {
        Self::new(name, Type::Set(element))
    }

    pub(crate) const fn map(name: &'static str, element: &'static Field) -> Self {
        Self::new(name, Type::Map(element))
    }

    pub(crate) const fn record(name: &'static str, fields: &'static [Field]) -> Self {
        Self::new(name, Type::Record(fields))
    }

    /// Always required.
    pub(crate) const fn polymorphic(name: &'static str, variants: &'static Variants) -> Self {
        Self::new(name, Type::Polymorphic(variants)).required()
    }

    pub(crate) const fn foreign(name: &'static str, kind: &'static str) -> Self {
        Self::new(name, Type::Foreign(kind))
    }

    pub(crate) const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    pub(crate) const fn unique(self) -> Self {
        Self {
            unique: Some(Within::Workspace),
            ..self
        }
    }

    /// A text that lets in whoever has it: two users have two, wherever they are.
    pub(crate) const fn token(name: &'static str) -> Self {
        let field = Self::string(name).rule(super::rules::token);
        Self {
            unique: Some(Within::All),
            hashed: true,
            ..field
        }
    }

    /// A text that nobody guesses, where none is given.
    pub(crate) const fn generated(self) -> Self {
        Self {
            generated: true,
            ..self
        }
    }

    pub(crate) const fn cascade(self) -> Self {
        Self {
            cascades: true,
            ..self
        }
    }

    pub(crate) const fn immutable(self) -> Self {
        Self {
            immutable: true,
            ..self
        }
    }

    pub(crate) const fn default(self, default: Default) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }

    pub(crate) const fn one_of(self, one_of: &'static [&'static str]) -> Self {
        Self { one_of, ..self }
    }

    pub(crate) const fn between(self, low: i64, high: i64) -> Self {
        Self {
            between: Some((low, high)),
            ..self
        }
    }

    pub(crate) const fn rule(self, rule: Rule) -> Self {
        Self {
            rule: Some(rule),
            ..self
        }
    }

    pub(crate) const fn private(self) -> Self {
        Self {
            visibility: Visibility::Private,
            ..self
        }
    }

    pub(crate) const fn address(self) -> Self {
        Self {
            visibility: Visibility::Address,
            ..self
        }
    }

    pub(crate) const fn internal(self) -> Self {
        Self {
            visibility: Visibility::Internal,
            ..self
        }
    }

    pub(crate) const fn not_in_events(self) -> Self {
        Self {
            visibility: Visibility::NotInEvents,
            ..self
        }
    }

    pub(crate) const fn private_key(self) -> Self {
        Self {
            visibility: Visibility::PrivateKey,
            ..self
        }
    }

    /// Whether events show it.
    pub(crate) fn is_public(&self) -> bool {
        self.visibility == Visibility::Public
    }

    /// Whether answers may not show it.
    pub(crate) const fn is_secret(&self) -> bool {
        matches!(self.visibility, Visibility::Secret | Visibility::PrivateKey)
    }

    pub(crate) const fn secret(self) -> Self {
        Self {
            visibility: Visibility::Secret,
            ..self
        }
    }

    /// The fields of a record; `form` are those of the polymorphic one.
    pub(crate) fn record_fields(&self, form: &'static [Field]) -> Option<&'static [Field]> {
        match self.kind {
            Type::Record(fields) => Some(fields),
            Type::Polymorphic(_) => Some(form),
            _ => None,
        }
    }
}

/// The end of the year 9999, which every client can print.
const MAX_TIMESTAMP: i64 = 253_402_300_799;

/// Any text, as an element.
pub(super) static TEXT: Field = Field::string("");
/// A name of something in this service's own lists.
pub(super) static NAME: Field = Field::string("");
static TAG: Field = Field::string("").rule(super::rules::tag);
