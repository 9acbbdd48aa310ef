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
mod consumers;
mod event_hooks;
mod field;
mod infer;
mod kinds;
pub(crate) mod present;
mod rbac_role_endpoints;
mod rbac_roles;
mod rbac_users;
mod routes;
mod rules;
mod services;
mod table;
mod violations;
mod workspaces;

pub(crate) use admins::INVITED;
pub(crate) use build::Input;
pub(crate) use event_hooks::is_pinged;
pub(crate) use field::Within;
pub(crate) use rbac_roles::BUILT_IN;
pub(crate) use rules::{MAX_UNIQUE, TOKEN_PREFIX, check_token, derived_id, is_uuid};
pub(crate) use table::{Entity, Schema, Scope, UniqueValue};
pub(crate) use violations::Violations;
