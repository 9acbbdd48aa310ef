//! Who may use the Admin API (RBAC): users by their tokens, and what their roles permit.
//!
//! * `token`: tokens, and their digests;
//! * `login`: the user of a request;
//! * `permissions`: what a user may do;
//! * `entity_paths`: the paths that lead to an entity;
//! * `throttle`: what one address may try;
//! * `audit`: what is recorded of changes and refusals;
//! * `caller`: who makes a request, as handlers know it.

pub(crate) mod audit;
mod caller;
mod entity_paths;
mod login;
mod permissions;
mod throttle;
pub(crate) mod token;

pub(crate) use caller::Caller;
pub(crate) use login::{APPROVED, Logins, Refused, TOKEN, status};
pub(crate) use permissions::{Action, Permissions, reach, role_of, roles};
pub(crate) use throttle::{Throttle, place};

/// Of a path, with the workspace before it.
pub(crate) const MAX_SEGMENTS: usize = 12;

/// Whether requests need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Rbac {
    On,
    Off,
}
