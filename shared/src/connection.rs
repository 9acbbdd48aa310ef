//! Connects to NATS.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ServerAddr};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The oldest nats-server that has message schedules and atomic batches with ids.
const MIN_SERVER: (u64, u64) = (2, 14);
/// Between attempts to reach a server.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "NATS")]
#[group(skip)]
pub struct Options {
    /// NATS servers, separated by commas; user and password or a token may stand in the URL.
    #[arg(
        long,
        env = "HOOKLINE_NATS_URL",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: Vec<String>,

    /// NATS credentials file (`.creds`).
    #[arg(long, env = "HOOKLINE_NATS_CREDENTIALS", value_name = "FILE")]
    pub nats_credentials: Option<PathBuf>,
}

impl Options {
    /// The error does not quote the address, which may hold a password.
    pub fn servers(&self) -> Result<Vec<ServerAddr>, Error> {
        let parse = |url: &String| url.trim().parse().map_err(|_| Error::Address);
        self.nats_url.iter().map(parse).collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "HOOKLINE_NATS_URL must be nats://HOST:PORT, several separated by commas; user and password with special characters must be percent-encoded"
    )]
    Address,
    #[error("cannot read the NATS credentials file")]
    Credentials(#[source] std::io::Error),
    #[error("NATS refused the credentials")]
    Authorization,
    #[error("nats-server {0} is too old: 2.14 or newer is required (message schedules)")]
    ServerTooOld(String),
    #[error("shut down while waiting for NATS")]
    Stopped,
}

/// Connects, retrying until the server answers. Fails only if waiting does not help: wrong credentials, a server that
/// is too old, or a shutdown.
pub async fn connect(
    options: &Options,
    name: &str,
    shutdown: &CancellationToken,
) -> Result<Client, Error> {
    let mut warned = false;
    let servers = options.servers()?;
    loop {
        let mut connect = async_nats::ConnectOptions::new()
            .name(name)
            .ping_interval(Duration::from_secs(10))
            .connection_timeout(Duration::from_secs(5))
            .reconnect_delay_callback(|tries| RETRY.min(Duration::from_millis(100) * tries as u32))
            .event_callback(log_event);
        if let Some(file) = &options.nats_credentials {
            connect = connect
                .credentials_file(file)
                .await
                .map_err(Error::Credentials)?;
        }
        match connect.connect(&servers[..]).await {
            Ok(client) => {
                check_version(&client.server_info().version)?;
                return Ok(client);
            }
            Err(error) if error.kind() == ConnectErrorKind::AuthorizationViolation => {
                return Err(Error::Authorization);
            }
            Err(error) if !warned => {
                warned = true;
                tracing::warn!(server = %address(&servers), %error, "NATS is not reachable, retrying every second");
            }
            Err(error) => tracing::debug!(%error, "NATS is not reachable"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return Err(Error::Stopped),
        }
    }
}

/// Hosts and ports, without user and password.
fn address(servers: &[ServerAddr]) -> String {
    let hosts = servers
        .iter()
        .map(|url| format!("{}:{}", url.host(), url.port()));
    hosts.collect::<Vec<_>>().join(",")
}

/// Notified when a connection of this process to NATS is lost.
pub fn disconnects() -> &'static Notify {
    static DISCONNECTS: Notify = Notify::const_new();
    &DISCONNECTS
}

async fn log_event(event: async_nats::Event) {
    match event {
        async_nats::Event::Connected => tracing::info!("connected to NATS"),
        async_nats::Event::Disconnected => {
            disconnects().notify_one();
            tracing::warn!("lost the connection to NATS");
        }
        async_nats::Event::SlowConsumer(subscription) => {
            tracing::debug!(
                subscription,
                "messages were dropped and will be redelivered"
            );
        }
        other => tracing::debug!(event = %other, "NATS"),
    }
}

fn check_version(version: &str) -> Result<(), Error> {
    let mut numbers = version
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    let found: (u64, u64) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < MIN_SERVER {
        return Err(Error::ServerTooOld(version.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        let arguments = std::iter::once(&"x").chain(arguments);
        Arguments::try_parse_from(arguments)
            .expect("valid arguments")
            .options
    }

    #[test]
    fn servers_older_than_2_14_are_refused() {
        for version in ["2.13.9", "2.9", "1.99.0", "", "junk"] {
            assert!(check_version(version).is_err(), "{version}");
        }
        for version in ["2.14.0", "2.15.1-beta.1", "3.0.0"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_not_shown() {
        let options = options(&["--nats-url", "nats://user:hush@localhost:4222"]);
        let servers = options.servers().expect("an address");
        assert_eq!(address(&servers), "localhost:4222");
    }

    #[test]
    fn an_address_that_cannot_be_read_is_not_quoted() {
        let options = options(&["--nats-url", "nats://user:hush@localhost:notaport"]);
        let error = options.servers().expect_err("no port").to_string();
        assert!(error.contains("HOOKLINE_NATS_URL") && !error.contains("hush"));
    }
}
