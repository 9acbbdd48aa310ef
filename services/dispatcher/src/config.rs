//! The dispatcher's settings: flags, environment variables, help and defaults from one struct.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hookline_shared::hook::allowances;
use hookline_shared::settings::{duration, node_name};
use hookline_shared::{connection, keyring, parking, retry, streams, telemetry, tls};
use ipnet::IpNet;

use crate::admission::circuit_breaker;
use crate::attempt::delivery_log::Mode;
use crate::claims;
use crate::handler::proxy::{NotAProxy, Proxy};
use crate::hooks::Defaults;
use crate::redis::url::{self, RedisUrl};

/// A Hookline dispatcher: pulls events from NATS JetStream, matches them with hooks, and delivers. Any number of
/// dispatchers share the work.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "hookline-dispatcher", version)]
pub struct Config {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address of the status API: /metrics, /healthz, /readyz.
    #[arg(
        long,
        env = "HOOKLINE_STATUS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9100"
    )]
    pub status_listen: SocketAddr,

    /// Name of this dispatcher in the delivery log. [default: the host's name and the port of the status API]
    #[arg(long, env = "HOOKLINE_NODE", value_name = "NAME")]
    pub node: Option<String>,

    /// Hooks that have metrics of their own, the oldest first; those of all others are summed.
    #[arg(
        long,
        env = "HOOKLINE_HOOK_METRICS",
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(0..=10_000)
    )]
    pub hook_metrics: u32,

    /// Time for attempts in flight to finish after SIGTERM.
    #[arg(
        long,
        env = "HOOKLINE_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "20s",
        value_parser = duration
    )]
    pub shutdown_timeout: Duration,

    #[command(flatten)]
    pub nats: connection::Options,

    #[command(flatten)]
    pub streams: streams::Options,

    #[command(flatten)]
    pub redis: Coordination,

    #[command(flatten)]
    pub lanes: Lanes,

    #[command(flatten)]
    pub attempts: Attempts,

    #[command(flatten)]
    pub hooks: Hooks,

    #[command(flatten)]
    pub logs: telemetry::Options,
}

/// What to do instead of dispatching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Make the settings given before it, and the Redis, those of the cluster, and exit. Dispatchers that differ do not
    /// start; those that run go on until they are restarted.
    ReplaceSettings,
    /// Ask the dispatcher of these settings whether it is healthy, and exit with 0 or 1.
    Healthcheck,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Redis")]
pub struct Coordination {
    /// Redis or Valkey: `redis://USER:PASSWORD@HOST:PORT`, `redis+cluster://HOST:PORT,HOST:PORT`
    /// or `redis+sentinel://HOST:PORT,HOST:PORT/MASTER`; `rediss` for TLS.
    #[arg(
        long,
        env = "HOOKLINE_REDIS_URL",
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379",
        hide_env_values = true
    )]
    pub redis_url: String,

    /// Authorities of Redis' certificate, in PEM, in the place of those that this host trusts.
    #[arg(long, env = "HOOKLINE_REDIS_TLS_CA", value_name = "FILE")]
    pub redis_tls_ca: Option<PathBuf>,

    /// Certificate of this client for Redis, in PEM.
    #[arg(long, env = "HOOKLINE_REDIS_TLS_CERT", value_name = "FILE")]
    pub redis_tls_cert: Option<PathBuf>,

    /// Its private key.
    #[arg(long, env = "HOOKLINE_REDIS_TLS_KEY", value_name = "FILE")]
    pub redis_tls_key: Option<PathBuf>,

    /// How long a claim on a delivery holds without renewal; then another dispatcher may take the delivery over.
    /// Shorter than the ack wait.
    #[arg(
        long,
        env = "HOOKLINE_LEASE",
        value_name = "DURATION",
        default_value = "6s",
        value_parser = duration
    )]
    pub lease: Duration,

    /// How long a successful delivery is remembered, so that a repeat is dropped.
    #[arg(
        long,
        env = "HOOKLINE_DEDUPE_WINDOW",
        value_name = "DURATION",
        default_value = "1h",
        value_parser = duration
    )]
    pub dedupe_window: Duration,

    /// Hold deliveries while Redis does not answer, instead of going on with possible repeats.
    #[arg(long, env = "HOOKLINE_REDIS_REQUIRED")]
    pub redis_required: bool,
}

impl Coordination {
    pub fn url(&self) -> Result<RedisUrl, url::Error> {
        let url = RedisUrl::parse(&self.redis_url)?;
        let files = tls::Files {
            name: "HOOKLINE_REDIS_TLS",
            ca: self.redis_tls_ca.clone(),
            cert: self.redis_tls_cert.clone(),
            key: self.redis_tls_key.clone(),
        };
        if files.is_empty() {
            return Ok(url);
        }
        url.with_certificates(files.read()?)
    }

    #[must_use]
    pub fn claims(&self) -> claims::Options {
        claims::Options {
            lease: self.lease,
            window: self.dedupe_window,
            required: self.redis_required,
        }
    }
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Lanes")]
pub struct Lanes {
    /// Events handled at the same time.
    #[arg(
        long,
        env = "HOOKLINE_EVENT_PERMITS",
        value_name = "N",
        default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(2..=20_000)
    )]
    pub event_permits: u32,

    /// Parked deliveries handled at the same time.
    #[arg(
        long,
        env = "HOOKLINE_RETRY_PERMITS",
        value_name = "N",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=20_000)
    )]
    pub retry_permits: u32,

    /// How long NATS waits for a progress ack before it redelivers a message. Longer than the lease.
    #[arg(
        long,
        env = "HOOKLINE_ACK_WAIT",
        value_name = "DURATION",
        default_value = "8s",
        value_parser = duration
    )]
    pub ack_wait: Duration,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Attempts")]
pub struct Attempts {
    /// Networks that hooks may reach although they are not public, separated by commas, such as
    /// `10.0.0.0/8,127.0.0.1`. Other addresses that are not globally routable are refused.
    #[arg(
        long,
        env = "HOOKLINE_EGRESS_ALLOW",
        value_name = "NETWORKS",
        value_delimiter = ',',
        value_parser = network
    )]
    pub egress_allow: Vec<IpNet>,

    /// Proxy of hooks' requests, `http://USER:PASSWORD@HOST:PORT` or `https://...`: it opens tunnels (CONNECT) to
    /// addresses, which are looked up and checked here. HTTP_PROXY and the like are not read. [default: none]
    #[arg(
        long,
        env = "HOOKLINE_PROXY",
        value_name = "URL",
        hide_env_values = true
    )]
    pub proxy: Option<String>,

    /// Receivers that are reached past the proxy, separated by commas: names, with all below them, addresses and
    /// networks.
    #[arg(
        long,
        env = "HOOKLINE_NO_PROXY",
        value_name = "HOSTS",
        default_value = ""
    )]
    pub no_proxy: String,

    /// Time to connect.
    #[arg(
        long,
        env = "HOOKLINE_CONNECT_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration
    )]
    pub connect_timeout: Duration,

    /// Time for a whole attempt, unless the hook has its own.
    #[arg(
        long,
        env = "HOOKLINE_TIMEOUT",
        value_name = "DURATION",
        default_value = "15s",
        value_parser = duration
    )]
    pub timeout: Duration,

    /// Pauses after failed attempts, separated by commas, unless the hook has its own. After the last one the delivery
    /// is dead. [default: 1s,5s,30s,2m,10m,30m,1h,3h,6h,12h]
    #[arg(
        long,
        env = "HOOKLINE_RETRY_SCHEDULE",
        value_name = "DURATIONS",
        value_delimiter = ',',
        value_parser = duration,
        default_values = ["1s", "5s", "30s", "2m", "10m", "30m", "1h", "3h", "6h", "12h"],
        hide_default_value = true
    )]
    pub retry_schedule: Vec<Duration>,

    /// Which attempts the delivery log keeps.
    #[arg(
        long = "attempts",
        env = "HOOKLINE_ATTEMPTS",
        value_name = "WHICH",
        value_enum,
        default_value_t = Mode::All
    )]
    pub logged: Mode,

    /// Processor time for a lambda.
    #[arg(
        long,
        env = "HOOKLINE_LAMBDA_TIME",
        value_name = "DURATION",
        default_value = "50ms",
        value_parser = duration
    )]
    pub lambda_time: Duration,

    /// Memory for lambdas in bytes, per Lua thread.
    #[arg(
        long,
        env = "HOOKLINE_LAMBDA_MEMORY",
        value_name = "BYTES",
        default_value_t = 32 << 20,
        value_parser = clap::value_parser!(u64).range(1 << 20..1 << 32)
    )]
    pub lambda_memory: u64,
}

impl Attempts {
    /// The proxy of hooks' requests, if there is one.
    pub(crate) fn proxy(&self) -> Result<Option<Proxy>, NotAProxy> {
        let address = self.proxy.as_deref().filter(|address| !address.is_empty());
        let proxy = address.map(|address| Proxy::new(address, &self.no_proxy));
        proxy.transpose()
    }
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Hooks without a value of their own in `delivery`")]
pub struct Hooks {
    /// Attempts of one hook at the same time, per dispatcher.
    #[arg(
        long,
        env = "HOOKLINE_HOOK_CONCURRENCY",
        value_name = "N",
        default_value_t = 32,
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    pub hook_concurrency: u32,

    /// Deliveries of one hook a second, over all dispatchers. [default: no limit]
    #[arg(long, env = "HOOKLINE_RATE_LIMIT", value_name = "RATE", value_parser = rate)]
    pub rate_limit: Option<f64>,

    /// When a hook's circuit opens, so that its deliveries wait without attempts. FAILURES: after this many in a row,
    /// seen by one dispatcher (0: never). RATE: at this failed part of half a minute's attempts. TIME: how long it stays
    /// open at first.
    #[arg(
        long,
        env = "HOOKLINE_CIRCUIT_BREAKER",
        value_name = "FAILURES,RATE,TIME",
        default_value = "10,0.5,5s",
        value_parser = circuit_breaker
    )]
    pub circuit_breaker: circuit_breaker::Settings,

    /// Age at which a delivery is dead, waits included. Deliveries of paused hooks are exempt.
    #[arg(
        long,
        env = "HOOKLINE_MAX_AGE",
        value_name = "DURATION",
        default_value = "3d",
        value_parser = duration
    )]
    pub max_age: Duration,

    #[command(flatten)]
    pub allowances: allowances::Options,

    /// Keys of hooks' secrets.
    #[command(flatten)]
    pub keyring: keyring::Options,

    #[command(flatten)]
    pub parking: parking::Options,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Otherwise a worker would lose its message before its claim.
    #[error(
        "HOOKLINE_LEASE ({lease:?}) must be at least 1s and shorter than HOOKLINE_ACK_WAIT ({ack_wait:?})"
    )]
    Lease { lease: Duration, ack_wait: Duration },
    #[error(transparent)]
    Redis(#[from] url::Error),
    #[error("{0} must be greater than zero")]
    Zero(&'static str),
}

impl Config {
    /// Checks the settings that clap cannot, among them those that depend on each other.
    pub fn check(&self) -> Result<(), Error> {
        self.redis.url()?;
        let (lease, ack_wait) = (self.redis.lease, self.lanes.ack_wait);
        if lease < Duration::from_secs(1) || lease >= ack_wait {
            return Err(Error::Lease { lease, ack_wait });
        }
        let durations = [
            ("HOOKLINE_TIMEOUT", self.attempts.timeout),
            ("HOOKLINE_CONNECT_TIMEOUT", self.attempts.connect_timeout),
            ("HOOKLINE_LAMBDA_TIME", self.attempts.lambda_time),
            ("HOOKLINE_DEDUPE_WINDOW", self.redis.dedupe_window),
            ("HOOKLINE_MAX_AGE", self.hooks.max_age),
        ];
        match durations
            .into_iter()
            .find(|(_, duration)| duration.is_zero())
        {
            Some((name, _)) => Err(Error::Zero(name)),
            None => Ok(()),
        }
    }

    /// The name given, or the default.
    #[must_use]
    pub fn node(&self) -> String {
        let default = || node_name("dispatcher", self.status_listen.port());
        let given = self.node.clone().filter(|name| !name.is_empty());
        given.unwrap_or_else(default)
    }

    pub(crate) fn hook_defaults(&self) -> Defaults {
        Defaults {
            policy: self.retry_policy(),
            concurrency: self.hooks.hook_concurrency,
            circuit: self.hooks.circuit_breaker,
            rate_limit: self.hooks.rate_limit,
            max_age: self.hooks.max_age,
            backlog: self.hooks.parking.hook_backlog,
        }
    }

    #[must_use]
    pub fn retry_policy(&self) -> retry::Policy {
        retry::Policy::new(self.attempts.retry_schedule.clone())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if rate > 0.0 && rate.is_finite() {
        Ok(rate)
    } else {
        Err("expected a number greater than 0".to_owned())
    }
}

fn circuit_breaker(text: &str) -> Result<circuit_breaker::Settings, String> {
    let form = || "expected three values such as 10,0.5,5s".to_owned();
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    let [failures, failure_rate, open] = parts[..] else {
        return Err(form());
    };
    let settings = circuit_breaker::Settings {
        failures: failures.parse().map_err(|_| form())?,
        failure_rate: failure_rate.parse().map_err(|_| form())?,
        open: duration(open)?,
    };
    let sound = (0.01..=1.0).contains(&settings.failure_rate) && !settings.open.is_zero();
    if sound { Ok(settings) } else { Err(form()) }
}

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "expected an address or a network such as 10.0.0.0/8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from(std::iter::once(&"hookline-dispatcher").chain(arguments))
    }

    #[test]
    fn the_defaults_are_sound() {
        Config::command().debug_assert();
        let config = parse(&[]).expect("defaults");
        config.check().expect("sound defaults");
        assert_eq!(config.retry_policy(), retry::Policy::default());
        assert!(config.attempts.egress_allow.is_empty(), "closed by default");
        assert!(config.status_listen.ip().is_loopback());
    }

    #[test]
    fn every_setting_has_an_environment_variable() {
        for argument in Config::command().get_arguments() {
            let name = argument.get_id().as_str();
            if !matches!(name, "help" | "version") {
                assert!(argument.get_env().is_some(), "{name}");
            }
        }
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let config = parse(&[
            "--egress-allow",
            "127.0.0.0/8, ::1",
            "--retry-schedule",
            "1s,500ms",
        ])
        .expect("valid lists");
        assert_eq!(config.attempts.egress_allow.len(), 2);
        assert_eq!(
            config.attempts.retry_schedule[1],
            Duration::from_millis(500)
        );
    }

    #[test]
    fn a_lease_that_outlasts_the_ack_wait_is_refused() {
        let config = parse(&["--lease", "8s", "--ack-wait", "8s"]).expect("parsed");
        assert!(config.check().is_err());
        assert!(parse(&["--egress-allow", "example.com"]).is_err());
        assert!(parse(&["--timeout", "soon"]).is_err());
    }

    #[test]
    fn a_circuit_breaker_is_three_values() {
        let parsed = |text| parse(&["--circuit-breaker", text]).map(|c| c.hooks.circuit_breaker);
        let settings = parsed("3, 0.25, 2m").expect("three values");
        assert_eq!(settings.failures, 3);
        assert_eq!(settings.open, Duration::from_secs(120));
        for text in ["3", "3,0.5", "3,50,5s", "3,0.5,0s", "-1,0.5,5s"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert!(parse(&["--rate-limit", "0"]).is_err());
    }
}
