//! The types of config fields, and how the Admin API describes them.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};

/// Stands for a secret in responses, pings and events.
pub const REDACTED: &str = "[redacted]";

#[derive(Debug, Clone, Copy)]
pub struct ConfigField {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    /// One line for the documentation.
    pub about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A URL, of which events show scheme and host.
    Address,
    /// Write-only text.
    Secret,
    /// Text that is shown in responses, but not in events, as the next three.
    Code,
    /// Texts by name, with an empty default.
    Headers,
    /// Texts by name.
    Map,
    Codes,
    /// Unix seconds.
    Time,
    /// A boolean with this default.
    Flag(bool),
    /// One of the workspace's `certificates`.
    Certificate,
    /// Ids of the workspace's `ca_certificates`.
    Authorities,
}

pub(super) trait ConfigValue {
    const KIND: Kind;
    const REQUIRED: bool = false;
}

impl ConfigValue for String {
    const KIND: Kind = Kind::Text;
    const REQUIRED: bool = true;
}

impl ConfigValue for Address {
    const KIND: Kind = Kind::Address;
    const REQUIRED: bool = true;
}

impl ConfigValue for Option<String> {
    const KIND: Kind = Kind::Code;
}

impl ConfigValue for Option<Secret> {
    const KIND: Kind = Kind::Secret;
}

impl ConfigValue for Option<i64> {
    const KIND: Kind = Kind::Time;
}

impl ConfigValue for Option<EntityId> {
    const KIND: Kind = Kind::Certificate;
}

impl ConfigValue for Option<Vec<String>> {
    const KIND: Kind = Kind::Authorities;
}

impl ConfigValue for Option<Headers> {
    const KIND: Kind = Kind::Headers;
}

impl ConfigValue for Option<BTreeMap<String, String>> {
    const KIND: Kind = Kind::Map;
}

impl ConfigValue for Vec<String> {
    const KIND: Kind = Kind::Codes;
    const REQUIRED: bool = true;
}

impl<const DEFAULT: bool> ConfigValue for Flag<DEFAULT> {
    const KIND: Kind = Kind::Flag(DEFAULT);
}

/// Names an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityId {
    pub id: String,
}

/// A URL, which may hold credentials.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Deref for Address {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A boolean; null or a missing field means the default.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct Flag<const DEFAULT: bool>(bool);

impl<const DEFAULT: bool> Deref for Flag<DEFAULT> {
    type Target = bool;

    fn deref(&self) -> &bool {
        &self.0
    }
}

impl<'de, const DEFAULT: bool> Deserialize<'de> for Flag<DEFAULT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde accepts a missing field only for an option.
        let given = Option::deserialize(deserializer)?;
        Ok(Self(given.unwrap_or(DEFAULT)))
    }
}

/// A text that debug output never shows, and so neither do logs and errors.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Request headers by name. Values often hold tokens, so debug output shows only names.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(pub BTreeMap<String, String>);

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
