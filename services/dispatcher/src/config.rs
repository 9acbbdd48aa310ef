//! The dispatcher's settings: flags, environment variables, help and defaults from one struct.

use std::net::SocketAddr;
use std::time::Duration;

use hookline_shared::settings::{duration, host_name};
use hookline_shared::{parking, retry, streams, telemetry};
use ipnet::IpNet;

use crate::admission::circuit_breaker;
use crate::attempt::delivery_log::Mode;
use crate::claims;
use crate::hooks::Defaults;
use crate::redis::url::{self, RedisUrl};

/// A Hookline dispatcher: takes events from NATS JetStream, matches hooks, and delivers. Run as
/// many as you like; they share the work.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "hookline-dispatcher", version)]
pub struct Config {
    /// Where the status API listens: /metrics, /healthz, /readyz.
    #[arg(
        long,
        env = "HOOKLINE_STATUS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9100"
    )]
    pub status_listen: SocketAddr,

    /// Name of this dispatcher, which the delivery log carries; by default the host's name.
    #[arg(long, env = "HOOKLINE_NODE", value_name = "NAME", default_value_t = host_name("dispatcher"))]
    pub node: String,

    /// On SIGTERM, how long attempts in flight may take to finish.
    #[arg(
        long,
        env = "HOOKLINE_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "20s",
        value_parser = duration
    )]
    pub shutdown_timeout: Duration,

    /// Connection to NATS, and the streams.
    #[command(flatten)]
    pub nats: streams::Options,

    /// Coordination through Redis.
    #[command(flatten)]
    pub redis: Coordination,

    /// How much is done at the same time.
    #[command(flatten)]
    pub lanes: Lanes,

    /// How attempts are made.
    #[command(flatten)]
    pub attempts: Attempts,

    /// What holds for a hook that says nothing else.
    #[command(flatten)]
    pub hooks: Hooks,

    /// Logs.
    #[command(flatten)]
    pub logs: telemetry::Options,
}

/// Coordination through Redis.
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

    /// How long a claim on a delivery holds without renewal: what a dead worker held is taken
    /// over after that. Shorter than the ack wait.
    #[arg(
        long,
        env = "HOOKLINE_LEASE",
        value_name = "DURATION",
        default_value = "6s",
        value_parser = duration
    )]
    pub lease: Duration,

    /// How long a delivery that was made is remembered, so that a repeat is dropped.
    #[arg(
        long,
        env = "HOOKLINE_DEDUPE_WINDOW",
        value_name = "DURATION",
        default_value = "1h",
        value_parser = duration
    )]
    pub dedupe_window: Duration,

    /// Hold deliveries while Redis does not answer. Otherwise they go on, and repeats are
    /// possible.
    #[arg(long, env = "HOOKLINE_REDIS_REQUIRED")]
    pub redis_required: bool,
}

impl Coordination {
    /// Where Redis is.
    ///
    /// # Errors
    /// Says what form is expected.
    pub fn url(&self) -> Result<RedisUrl, url::Error> {
        RedisUrl::parse(&self.redis_url)
    }

    /// How claims are made.
    #[must_use]
    pub fn claims(&self) -> claims::Options {
        claims::Options {
            lease: self.lease,
            window: self.dedupe_window,
            required: self.redis_required,
        }
    }
}

/// How much is done at the same time.
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

    /// How long NATS waits for a sign of life before another dispatcher gets a message; longer
    /// than the lease.
    #[arg(
        long,
        env = "HOOKLINE_ACK_WAIT",
        value_name = "DURATION",
        default_value = "8s",
        value_parser = duration
    )]
    pub ack_wait: Duration,
}

/// How attempts are made.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Attempts")]
pub struct Attempts {
    /// Networks that hooks may reach although they are not public, separated by commas, such as
    /// `10.0.0.0/8,127.0.0.1`. Nothing else that is not globally routable can be reached.
    #[arg(
        long,
        env = "HOOKLINE_EGRESS_ALLOW",
        value_name = "NETWORKS",
        value_delimiter = ',',
        value_parser = network
    )]
    pub egress_allow: Vec<IpNet>,

    /// How long a connection may take.
    #[arg(
        long,
        env = "HOOKLINE_CONNECT_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration
    )]
    pub connect_timeout: Duration,

    /// How long an attempt may take in all, unless the hook says otherwise.
    #[arg(
        long,
        env = "HOOKLINE_TIMEOUT",
        value_name = "DURATION",
        default_value = "15s",
        value_parser = duration
    )]
    pub timeout: Duration,

    /// Pauses after failed attempts, separated by commas, unless the hook says otherwise; after
    /// the last one the delivery is dead. [default: 1s,5s,30s,2m,10m,30m,1h,3h,6h,12h]
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

    /// How long a lambda may run.
    #[arg(
        long,
        env = "HOOKLINE_LAMBDA_TIME",
        value_name = "DURATION",
        default_value = "50ms",
        value_parser = duration
    )]
    pub lambda_time: Duration,

    /// Memory in bytes that lambdas may use, per Lua thread.
    #[arg(
        long,
        env = "HOOKLINE_LAMBDA_MEMORY",
        value_name = "BYTES",
        default_value_t = 32 << 20,
        value_parser = clap::value_parser!(u64).range(1 << 20..1 << 32)
    )]
    pub lambda_memory: u64,
}

/// What holds for a hook that says nothing else in its `delivery`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Hooks, where their `delivery` says nothing")]
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

    /// When a hook's circuit opens, so that its deliveries wait without attempts: after so many
    /// failures in a row (0: never; dispatchers share them, down to five each, until something of the
    /// hook has succeeded), at such a failed part of the attempts of half a minute, and for
    /// how long at first.
    #[arg(
        long,
        env = "HOOKLINE_CIRCUIT_BREAKER",
        value_name = "FAILURES,RATE,TIME",
        default_value = "10,0.5,5s",
        value_parser = circuit_breaker
    )]
    pub circuit_breaker: circuit_breaker::Settings,

    /// How old a delivery may become, waits included, before it is dead; what waits because its
    /// hook is paused is exempt.
    #[arg(
        long,
        env = "HOOKLINE_MAX_AGE",
        value_name = "DURATION",
        default_value = "3d",
        value_parser = duration
    )]
    pub max_age: Duration,

    /// How many deliveries of one hook may wait; what comes beyond is dead.
    #[arg(
        long,
        env = "HOOKLINE_HOOK_BACKLOG",
        value_name = "N",
        default_value_t = parking::HOOK_BACKLOG,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub hook_backlog: u64,
}

/// Settings that contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A worker would lose its message before its claim.
    #[error(
        "HOOKLINE_LEASE ({lease:?}) must be at least 1s and shorter than HOOKLINE_ACK_WAIT ({ack_wait:?})"
    )]
    Lease {
        /// The lease.
        lease: Duration,
        /// The ack wait.
        ack_wait: Duration,
    },
    /// The Redis URL cannot be read.
    #[error(transparent)]
    Redis(#[from] url::Error),
    /// A duration is zero.
    #[error("{0} must be longer than nothing")]
    Zero(&'static str),
}

impl Config {
    /// Checks what no single setting can tell.
    ///
    /// # Errors
    /// Names the settings that contradict each other.
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

    /// What a hook gets where it says nothing.
    pub(crate) fn hook_defaults(&self) -> Defaults {
        Defaults {
            policy: self.retry_policy(),
            concurrency: self.hooks.hook_concurrency,
            circuit: self.hooks.circuit_breaker,
            rate_limit: self.hooks.rate_limit,
            max_age: self.hooks.max_age,
            backlog: self.hooks.hook_backlog,
        }
    }

    /// The policy by which failed attempts are repeated.
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
