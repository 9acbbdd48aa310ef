//! The gateway's settings: flags, environment variables, help and defaults from one struct.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;

use hookline_shared::hook::allowances;
use hookline_shared::settings::{duration, node_name};
use hookline_shared::{connection, keyring, parking, streams, telemetry, tls};

use crate::access::Rbac;
use crate::limits;

/// A gateway node of Hookline: the Admin API, which raises an event for every change.
#[derive(Debug, Clone, Parser)]
#[command(name = "hookline-gateway", version)]
pub struct Config {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where the Admin API listens. Beyond loopback it asks for tokens, see --rbac.
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8001"
    )]
    pub admin_listen: SocketAddr,

    /// TLS of the Admin API.
    #[command(flatten)]
    pub admin_tls: AdminTls,

    /// Whether requests need a token of a user whose roles permit them, in the header Kong-Admin-Token. [default: on
    /// where the Admin API listens beyond loopback, else off]
    #[arg(long, env = "HOOKLINE_RBAC", value_name = "MODE")]
    pub rbac: Option<Rbac>,

    /// Let anyone who reaches the Admin API beyond loopback do everything, with --rbac off.
    #[arg(long, env = "HOOKLINE_INSECURE")]
    pub insecure: bool,

    /// Token of the first super-admin, kong_admin, who is made at the first start only. KONG_PASSWORD is the same.
    #[arg(
        long,
        env = "HOOKLINE_PASSWORD",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub password: Option<String>,

    #[arg(long, env = "KONG_PASSWORD", hide = true, hide_env_values = true)]
    pub kong_password: Option<String>,

    /// Networks of proxies before the Admin API, comma-separated, such as `10.0.0.0/8`: from them X-Forwarded-For says
    /// where a request comes from. [default: none]
    #[arg(
        long,
        env = "HOOKLINE_TRUSTED_PROXIES",
        value_name = "NETWORKS",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<IpNet>,

    /// Origins of web pages that may change something through the Admin API, comma-separated, such as
    /// `https://console.example.com`. Pages of its own address may. [default: none]
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_ORIGINS",
        value_name = "ORIGINS",
        value_delimiter = ','
    )]
    pub admin_origins: Vec<String>,

    /// Version of Kong that the Admin API says it has, for clients that ask: its own speak that of 3.9.
    #[arg(
        long,
        env = "HOOKLINE_KONG_VERSION",
        value_name = "VERSION",
        default_value = "3.9.1"
    )]
    pub kong_version: String,

    /// Show private keys in answers, as Kong does: decK needs them to compare certificates. Who may read certificates
    /// has their keys then.
    #[arg(long, env = "HOOKLINE_SHOW_PRIVATE_KEYS")]
    pub show_private_keys: bool,

    /// Where the status API listens: /metrics, /healthz, /readyz, /scaling.
    #[arg(
        long,
        env = "HOOKLINE_STATUS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8100"
    )]
    pub status_listen: SocketAddr,

    /// Name of this node, as its events carry it. [default: the host's name and the port of the status API]
    #[arg(long, env = "HOOKLINE_NODE", value_name = "NAME")]
    pub node: Option<String>,

    /// Messages that wait or are in hand for which /scaling wants one more dispatcher. More than the permits of one
    /// dispatcher, or busy ones ask for more.
    #[arg(
        long,
        env = "HOOKLINE_WORKER_MESSAGES",
        value_name = "N",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub worker_messages: u64,

    /// On SIGTERM, how long requests in flight may take to finish.
    #[arg(
        long,
        env = "HOOKLINE_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = duration
    )]
    pub shutdown_timeout: Duration,

    /// Events over HTTP.
    #[command(flatten)]
    pub ingest: IngestOptions,

    /// Keys of secrets.
    #[command(flatten)]
    pub keyring: keyring::Options,

    /// What workspaces may have and ask.
    #[command(flatten)]
    pub limits: limits::Options,

    /// What hooks may do.
    #[command(flatten)]
    pub allowances: allowances::Options,

    /// Limits on what waits, which replay keeps too.
    #[command(flatten)]
    pub parking: parking::Options,

    /// Connection to NATS.
    #[command(flatten)]
    pub nats: connection::Options,

    /// The streams.
    #[command(flatten)]
    pub streams: streams::Options,

    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Options,
}

/// What to do instead of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Print a new key for the keyring, and exit.
    NewKey,
    /// Seal all secrets with the first key of the keyring, and exit. Gateways and dispatchers must have
    /// both keys meanwhile; they may run.
    RotateKeys {
        /// Drop secrets whose key is lost, and pause their hooks.
        #[arg(long)]
        drop_lost: bool,
    },
    /// Change streams that exist to what the settings given before it want, such as --replicas, and exit. Services may run.
    /// It needs a NATS user who may change streams, such as `operator` of deploy/nats.
    Migrate {
        /// Only say what would be changed.
        #[arg(long)]
        dry_run: bool,
        /// Also lower limits, ages and copies, which may remove messages; else they are kept where they are larger.
        #[arg(long)]
        shrink: bool,
        /// Replace the delivery log's stream where it cannot be changed, which loses what it holds.
        #[arg(long)]
        drop_delivery_log: bool,
    },
    /// Ask the gateway of these settings whether it is healthy, and exit with 0 or 1.
    Healthcheck,
}

/// Where events come in over HTTP, with a token of /ingest-tokens.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Events over HTTP")]
#[group(skip)]
pub struct IngestOptions {
    /// Where POST /events listens, such as `0.0.0.0:8050`. [default: nowhere]
    #[arg(long, env = "HOOKLINE_INGEST_LISTEN", value_name = "ADDRESS")]
    pub ingest_listen: Option<SocketAddr>,

    /// Its certificate, and those between it and its authority: it is served over TLS then. PEM, read again when it
    /// changes.
    #[arg(long, env = "HOOKLINE_INGEST_TLS_CERT", value_name = "FILE")]
    pub ingest_tls_cert: Option<PathBuf>,

    /// Its private key.
    #[arg(long, env = "HOOKLINE_INGEST_TLS_KEY", value_name = "FILE")]
    pub ingest_tls_key: Option<PathBuf>,

    /// Authorities of which senders must have a certificate.
    #[arg(long, env = "HOOKLINE_INGEST_TLS_CA", value_name = "FILE")]
    pub ingest_tls_ca: Option<PathBuf>,
}

impl IngestOptions {
    #[must_use]
    pub fn tls(&self) -> tls::Files {
        tls::Files {
            name: "HOOKLINE_INGEST_TLS",
            ca: self.ingest_tls_ca.clone(),
            cert: self.ingest_tls_cert.clone(),
            key: self.ingest_tls_key.clone(),
        }
    }
}

/// Files in PEM, read again when they change.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct AdminTls {
    /// Certificate of the Admin API, and those between it and its authority: it is served over TLS then.
    #[arg(long, env = "HOOKLINE_ADMIN_TLS_CERT", value_name = "FILE")]
    pub admin_tls_cert: Option<PathBuf>,

    /// Its private key.
    #[arg(long, env = "HOOKLINE_ADMIN_TLS_KEY", value_name = "FILE")]
    pub admin_tls_key: Option<PathBuf>,

    /// Authorities of which clients must have a certificate.
    #[arg(long, env = "HOOKLINE_ADMIN_TLS_CA", value_name = "FILE")]
    pub admin_tls_ca: Option<PathBuf>,
}

impl AdminTls {
    #[must_use]
    pub fn files(&self) -> tls::Files {
        tls::Files {
            name: "HOOKLINE_ADMIN_TLS",
            ca: self.admin_tls_ca.clone(),
            cert: self.admin_tls_cert.clone(),
            key: self.admin_tls_key.clone(),
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "HOOKLINE_ADMIN_LISTEN is beyond loopback and HOOKLINE_RBAC is off: anyone who reaches it could do everything. Set HOOKLINE_RBAC=on, or say --insecure"
    )]
    Insecure,
    #[error(
        "HOOKLINE_PASSWORD cannot be sent in a header: letters, digits and marks of ASCII can, without spaces"
    )]
    Password,
}

impl Config {
    /// Whether requests need a token.
    pub fn rbac(&self) -> Result<Rbac, Error> {
        let is_loopback = self.admin_listen.ip().is_loopback();
        match self.rbac {
            Some(Rbac::Off) if !is_loopback && !self.insecure => Err(Error::Insecure),
            Some(mode) => Ok(mode),
            None if is_loopback || self.insecure => Ok(Rbac::Off),
            None => Ok(Rbac::On),
        }
    }

    /// Says what is allowed and unwise.
    pub fn warn(&self) {
        let is_loopback = self.admin_listen.ip().is_loopback();
        if !is_loopback && self.admin_tls.files().is_empty() {
            tracing::warn!("the Admin API is served without TLS: tokens can be read on their way");
        }
        let ingest = self.ingest.ingest_listen;
        if ingest.is_some_and(|address| !address.ip().is_loopback()) && self.ingest.tls().is_empty()
        {
            tracing::warn!(
                "events are taken over HTTP without TLS: tokens can be read on their way"
            );
        }
        if !is_loopback && self.keyring.is_empty() {
            tracing::warn!(
                "secrets of hooks are stored in NATS as they are: HOOKLINE_KEYRING seals them"
            );
        }
    }

    /// The token of the first super-admin.
    pub fn first_password(&self) -> Result<Option<String>, Error> {
        let mut given = [&self.password, &self.kong_password].into_iter().flatten();
        let given = given.find(|password| !password.is_empty());
        match given {
            Some(password) if !password.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(Error::Password)
            }
            given => Ok(given.cloned()),
        }
    }

    /// The name given, or the default.
    #[must_use]
    pub fn node(&self) -> String {
        let default = || node_name("gateway", self.status_listen.port());
        let given = self.node.clone().filter(|name| !name.is_empty());
        given.unwrap_or_else(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_listen_on_loopback_only() {
        let config = Config::try_parse_from(["hookline-gateway"]).expect("defaults are valid");
        assert!(config.admin_listen.ip().is_loopback() && config.status_listen.ip().is_loopback());
        assert!(config.node().ends_with("-8100"), "{}", config.node());
        assert_eq!(config.shutdown_timeout, Duration::from_secs(30));
    }

    #[test]
    fn invalid_settings_are_refused() {
        for arguments in [
            ["--admin-max-body", "0"],
            ["--shutdown-timeout", "30"],
            ["--admin-listen", "8001"],
        ] {
            let arguments = ["hookline-gateway"].into_iter().chain(arguments);
            assert!(Config::try_parse_from(arguments).is_err());
        }
    }
}
