//! What handlers are prepared with.

use std::sync::Arc;
use std::time::Duration;

use hookline_shared::hook::Secret;
use hookline_shared::signature::{Algorithm, Signer};

use super::http::{Clients, Target};
use super::lua_pool::Pool;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// HTTP clients.
    pub clients: Arc<Clients>,
    /// Lua threads.
    pub lua: Pool,
    /// The time an attempt may take, unless the hook says otherwise.
    pub timeout: Duration,
}

/// The same for one hook.
pub(super) struct Preparation<'a> {
    pub(super) shared: &'a Shared,
    pub(super) timeout: Duration,
    pub(super) algorithm: Algorithm,
}

impl Preparation<'_> {
    pub(super) fn target(&self, url: &str, verify: bool) -> Result<Target, String> {
        let clients = &self.shared.clients;
        Target::new(url, clients.get(verify), self.timeout, clients.policy())
    }

    pub(super) fn signer(&self, secret: Option<&Secret>) -> Option<Signer> {
        secret.map(|secret| Signer::new(secret.expose(), self.algorithm))
    }
}
