//! What operators let hooks do, which is not safe everywhere.

use std::sync::OnceLock;

#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "What hooks may do")]
#[group(skip)]
pub struct Options {
    /// Let hooks set the Host header of their requests, and so reach any site behind a receiver's address. The same on
    /// gateways and dispatchers.
    #[arg(long, env = "HOOKLINE_ALLOW_HOST_HEADER")]
    pub allow_host_header: bool,

    /// Let hooks turn the verification of their receiver's certificate off, with `ssl_verify: false`. The same on
    /// gateways and dispatchers.
    #[arg(long, env = "HOOKLINE_ALLOW_UNVERIFIED_TLS")]
    pub allow_unverified_tls: bool,
}

static ALLOWED: OnceLock<Options> = OnceLock::new();

impl Options {
    /// For this process, before it reads hooks.
    pub fn apply(&self) {
        let _ = ALLOWED.set(self.clone());
    }
}

pub(super) fn host_header() -> bool {
    ALLOWED
        .get()
        .is_some_and(|allowed| allowed.allow_host_header)
}

pub(super) fn unverified_tls() -> bool {
    ALLOWED
        .get()
        .is_some_and(|allowed| allowed.allow_unverified_tls)
}
