//! The gateway's settings: flags, environment variables, help and defaults from one struct.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;

use hookline_shared::hook::framing;
use hookline_shared::settings::{duration, node_name};
use hookline_shared::{connection, parking, streams, telemetry};

/// A gateway node of Hookline: the Admin API, which raises an event for every change.
#[derive(Debug, Clone, Parser)]
#[command(name = "hookline-gateway", version)]
pub struct Config {
    /// Where the Admin API listens. It has no authentication: expose it to admins only.
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8001"
    )]
    pub admin_listen: SocketAddr,

    /// Origins of web pages that may change something through the Admin API, comma-separated, such as
    /// `https://console.example.com`. Pages of its own address may. [default: none]
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_ORIGINS",
        value_name = "ORIGINS",
        value_delimiter = ','
    )]
    pub admin_origins: Vec<String>,

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

    /// Largest request body in bytes.
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_MAX_BODY",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    pub admin_max_body: NonZeroUsize,

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

    /// Headers that hooks may set.
    #[command(flatten)]
    pub framing: framing::Options,

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

impl Config {
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
