//! The means to prepare a handler: clients, threads for hooks' code, timeouts, signers.

use std::sync::Arc;
use std::time::Duration;

use hookline_shared::hook::Secret;
use hookline_shared::lua::Limits;
use hookline_shared::signature::{Algorithm, Signer};

use super::code_pool::Pool;
use super::http::{Clients, Target};
use super::lambda::Vm;

/// Shared by all hooks.
#[derive(Clone)]
pub(crate) struct Shared {
    pub clients: Arc<Clients>,
    pub scripts: Pool<Vm>,
    pub templates: Pool<()>,
    /// Of a script.
    pub limits: Limits,
    /// Of an attempt, unless the hook has its own.
    pub timeout: Duration,
}

/// For one hook.
pub(super) struct Preparation<'a> {
    /// The hook's id.
    pub(super) hook: &'a str,
    pub(super) shared: &'a Shared,
    pub(super) timeout: Duration,
    pub(super) algorithm: Algorithm,
}

impl Preparation<'_> {
    pub(super) fn target(&self, url: &str, verify: bool) -> Result<Target, String> {
        let clients = &self.shared.clients;
        Target::new(url, clients.get(verify), self.timeout, clients.policy())
    }

    /// `previous`: the secret before this one, and its end in Unix seconds.
    pub(super) fn signer(
        &self,
        secret: Option<&Secret>,
        previous: (Option<&Secret>, Option<i64>),
    ) -> Option<Signer> {
        let signer = Signer::new(secret?.expose(), self.algorithm);
        Some(match previous {
            (Some(previous), Some(until)) => signer.with_previous(previous.expose(), until),
            _ => signer,
        })
    }
}
