//! The means to prepare a handler: clients, threads for hooks' code, timeouts, signers.

use std::sync::Arc;
use std::time::Duration;

use hookline_shared::hook::{EntityId, Secret};
use hookline_shared::lua::Limits;
use hookline_shared::signature::{Algorithm, Signer};

use super::clients::Clients;
use super::code_pool::Pool;
use super::http::Target;
use super::lambda::Vm;
use super::tls::Tls;
use crate::hooks::Certificates;

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
    pub(super) certificates: Certificates<'a>,
    pub(super) timeout: Duration,
    pub(super) algorithm: Algorithm,
}

impl Preparation<'_> {
    /// `verify`, `authorities`, `certificate`: as in the hook's config.
    pub(super) fn target(
        &self,
        url: &str,
        verify: bool,
        authorities: Option<&[String]>,
        certificate: Option<&EntityId>,
    ) -> Result<Target, String> {
        let authorities = authorities.iter().copied().flatten();
        let authorities = authorities.map(|id| self.certificates.authority(id));
        let identity = certificate.map(|named| self.certificates.identity(&named.id));
        let tls = Tls {
            verify,
            authorities: authorities.collect::<Result<_, _>>()?,
            identity: identity.transpose()?,
        };
        Target::new(url, tls, self.timeout, &self.shared.clients)
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
