//! Declarative entity tables: an entity kind is one table, and validation, routes, uniqueness,
//! references and events all follow from it.
//!
//! `table` and `field` define what a table is made of; each kind has a file of its own and is listed
//! in `kinds`. `build` turns input into an entity, `present` formats one for responses and events.

mod admins;
mod build;
mod ca_certificates;
mod certificates;
mod check;
mod consumer_groups;
mod consumers;
pub(crate) mod credentials;
mod describe;
mod event_hooks;
mod field;
mod infer;
pub(crate) mod ingest_tokens;
mod json_schema;
mod keys;
mod kinds;
mod partials;
pub(crate) mod plugins;
pub(crate) mod present;
#[cfg(test)]
pub(crate) mod random;
mod rbac_role_endpoints;
mod rbac_roles;
mod rbac_users;
mod routes;
mod rules;
mod services;
mod snis;
mod table;
mod targets;
mod upstreams;
mod vaults;
mod violations;
mod workspaces;

pub(crate) use admins::INVITED;
pub(crate) use build::Input;
pub(crate) use event_hooks::is_pinged;
pub(crate) use field::Within;
pub(crate) use json_schema::For;
pub(crate) use present::show_private_keys;
pub(crate) use rbac_roles::BUILT_IN;
pub(crate) use rules::{MAX_UNIQUE, TOKEN_PREFIX, check_token, derived_id, is_uuid};
pub(crate) use table::{Entity, Reference, Schema, Scope, UniqueValue};
pub(crate) use targets::{HEALTH, split as split_target};
pub(crate) use violations::Violations;
