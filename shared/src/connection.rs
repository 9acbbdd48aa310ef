//! Connects to NATS.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use prometheus::IntCounter;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::tls;

/// The oldest nats-server that has message schedules and atomic batches with ids.
const MIN_SERVER: (u64, u64) = (2, 14);
/// Between attempts to reach a server.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "NATS")]
#[group(skip)]
pub struct Options {
    /// NATS servers, separated by commas; a user and password or a token may stand in each URL, percent-encoded.
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

    /// NKey file: the seed of a user.
    #[arg(long, env = "HOOKLINE_NATS_NKEY", value_name = "FILE")]
    pub nats_nkey: Option<PathBuf>,

    /// Authorities of NATS' certificate, in PEM, beside those that this host trusts.
    #[arg(long, env = "HOOKLINE_NATS_TLS_CA", value_name = "FILE")]
    pub nats_tls_ca: Option<PathBuf>,

    /// Certificate of this client for NATS, in PEM.
    #[arg(long, env = "HOOKLINE_NATS_TLS_CERT", value_name = "FILE")]
    pub nats_tls_cert: Option<PathBuf>,

    /// Its private key.
    #[arg(long, env = "HOOKLINE_NATS_TLS_KEY", value_name = "FILE")]
    pub nats_tls_key: Option<PathBuf>,
}

impl Options {
    /// Hosts and ports; the client takes no user from a URL. Errors do not quote addresses, which may hold passwords.
    pub fn servers(&self) -> Result<Vec<ServerAddr>, Error> {
        self.login()?;
        let parse = |url: &String| -> Result<ServerAddr, Error> {
            let mut url = parse(url)?.into_inner();
            let stripped = url.set_username("").and_then(|()| url.set_password(None));
            stripped.map_err(|()| Error::Address)?;
            ServerAddr::from_url(url).map_err(|_| Error::Address)
        };
        self.nats_url.iter().map(parse).collect()
    }

    /// What the URLs say, all of them the same.
    fn login(&self) -> Result<Login, Error> {
        let mut logins = self.nats_url.iter().map(|url| Login::of(&parse(url)?));
        let first = logins.next().unwrap_or(Ok(Login::None))?;
        for other in logins {
            if other? != first {
                return Err(Error::Logins);
            }
        }
        let others = [&self.nats_credentials, &self.nats_nkey];
        let others = others.iter().filter(|file| file.is_some()).count();
        if others + usize::from(first != Login::None) > 1 {
            return Err(Error::TwoLogins);
        }
        Ok(first)
    }

    fn tls(&self) -> tls::Files {
        tls::Files {
            name: "HOOKLINE_NATS_TLS",
            ca: self.nats_tls_ca.clone(),
            cert: self.nats_tls_cert.clone(),
            key: self.nats_tls_key.clone(),
        }
    }

    async fn connect_options(&self) -> Result<ConnectOptions, Error> {
        let options = match self.login()? {
            Login::None => ConnectOptions::new(),
            Login::Token(token) => ConnectOptions::with_token(token),
            Login::User(user, password) => ConnectOptions::with_user_and_password(user, password),
        };
        let mut options = match &self.nats_credentials {
            Some(file) => options
                .credentials_file(file)
                .await
                .map_err(|source| Error::credentials(file, source))?,
            None => options,
        };
        if let Some(file) = &self.nats_nkey {
            let seed = tokio::fs::read_to_string(file).await;
            let seed = seed.map_err(|source| Error::credentials(file, source))?;
            let seed = seed.trim().to_owned();
            nkeys::KeyPair::from_seed(&seed).map_err(|_| Error::Seed(file.clone()))?;
            options = options.nkey(seed);
        }
        let files = self.tls();
        if !files.is_empty() {
            files.read()?;
            options = options.require_tls(true);
        }
        if let Some(ca) = files.ca {
            options = options.add_root_certificates(ca);
        }
        if let (Some(cert), Some(key)) = (files.cert, files.key) {
            options = options.add_client_certificate(cert, key);
        }
        Ok(options)
    }
}

fn parse(url: &str) -> Result<ServerAddr, Error> {
    url.trim().parse().map_err(|_| Error::Address)
}

/// How a client says who it is.
#[derive(PartialEq, Eq)]
enum Login {
    None,
    Token(String),
    User(String, String),
}

impl Login {
    /// `nats://TOKEN@HOST` or `nats://USER:PASSWORD@HOST`, percent-encoded.
    fn of(server: &ServerAddr) -> Result<Self, Error> {
        let decode = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(Cow::into_owned).map_err(|_| Error::Address)
        };
        Ok(match (server.username(), server.password()) {
            (None, None) => Self::None,
            (None, Some(token)) | (Some(token), None) => Self::Token(decode(token)?),
            (Some(user), Some(password)) => Self::User(decode(user)?, decode(password)?),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "HOOKLINE_NATS_URL must be nats://HOST:PORT, several separated by commas; user and password with special characters must be percent-encoded"
    )]
    Address,
    #[error("the URLs in HOOKLINE_NATS_URL must have the same user and password")]
    Logins,
    #[error(
        "give one of a user in HOOKLINE_NATS_URL, HOOKLINE_NATS_CREDENTIALS and HOOKLINE_NATS_NKEY"
    )]
    TwoLogins,
    #[error("cannot use the NATS credentials in {}: {source}", file.display())]
    Credentials {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("{} (HOOKLINE_NATS_NKEY) holds no seed of a user, which begins with SU", .0.display())]
    Seed(PathBuf),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(
        "NATS refused the credentials: check user and password in HOOKLINE_NATS_URL, HOOKLINE_NATS_CREDENTIALS, HOOKLINE_NATS_NKEY, or the client's certificate"
    )]
    Authorization,
    /// In the server's words.
    #[error("NATS forbids this user the {0}; docs/security.md lists the permissions it needs")]
    Forbidden(String),
    #[error("nats-server {0} is too old: 2.14 or newer is required (message schedules)")]
    ServerTooOld(String),
    #[error("shut down while waiting for NATS")]
    Stopped,
}

impl Error {
    fn credentials(file: &Path, source: std::io::Error) -> Self {
        Self::Credentials {
            file: file.to_owned(),
            source,
        }
    }
}

/// Connects, retrying until the server answers. Fails only if waiting does not help: wrong credentials, a server that
/// is too old, or a shutdown.
///
/// Each `service` has inboxes of its own, so that none may read another's answers.
pub async fn connect(
    options: &Options,
    service: &str,
    name: &str,
    shutdown: &CancellationToken,
) -> Result<Client, Error> {
    let mut warned = false;
    let servers = options.servers()?;
    loop {
        let connect = options.connect_options().await?;
        let connect = connect
            .name(format!("hookline-{service} {name}"))
            .custom_inbox_prefix(format!("_INBOX.{service}"))
            .ping_interval(Duration::from_secs(10))
            .connection_timeout(Duration::from_secs(5))
            // The first at once: until then the client keeps the broken connection open, and what the server sends over
            // it is redelivered only after the ack wait.
            .reconnect_delay_callback(|tries| {
                RETRY.min(Duration::from_millis(100) * (tries as u32).saturating_sub(1))
            })
            .event_callback(log_event);
        // Its future is large.
        match Box::pin(connect.connect(&servers[..])).await {
            Ok(client) => {
                check_version(&client.server_info().version)?;
                return Ok(client);
            }
            Err(error) if error.kind() == ConnectErrorKind::AuthorizationViolation => {
                return Err(Error::Authorization);
            }
            Err(error) if !warned => {
                warned = true;
                let check = advice(&error);
                tracing::warn!(server = %address(&servers), %error, check, "NATS is not reachable, retrying every second");
            }
            Err(error) => tracing::debug!(%error, "NATS is not reachable"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return Err(Error::Stopped),
        }
    }
}

fn advice(error: &ConnectError) -> &'static str {
    let text = error.to_string();
    if text.contains("InvalidContentType") {
        "the server speaks no TLS: HOOKLINE_NATS_URL should begin with nats://"
    } else if text.contains("certificate") || text.contains("TLS") {
        "its certificate must be valid for the host in HOOKLINE_NATS_URL, by an authority that this host trusts"
    } else if error.kind() == ConnectErrorKind::TimedOut {
        "is it a NATS server? check HOOKLINE_NATS_URL"
    } else {
        "host and port in HOOKLINE_NATS_URL"
    }
}

/// What the server last forbade this process.
static FORBIDDEN: LazyLock<watch::Sender<String>> = LazyLock::new(watch::Sender::default);

/// Ends `call` as soon as the server forbids this process its subject, which has `about` in it, or the inbox for the
/// answer: no answer would come.
pub async fn permitted<T>(about: &str, call: impl Future<Output = T>) -> Result<T, Error> {
    let mut forbidden = FORBIDDEN.subscribe();
    let refused = async move {
        while forbidden.changed().await.is_ok() {
            let what = forbidden.borrow_and_update().clone();
            if what.contains("_INBOX.") || what.contains(about) {
                return what;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        done = Box::pin(call) => Ok(done),
        what = refused => Err(Error::Forbidden(what)),
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

/// How often this process has connected to NATS.
static CONNECTS: LazyLock<watch::Sender<u64>> = LazyLock::new(watch::Sender::default);

/// Changes when a client of this process has connected again: its pulls are lost.
#[must_use]
pub fn connects() -> watch::Receiver<u64> {
    CONNECTS.subscribe()
}

/// Counts connections that this process lost and made again.
pub fn reconnects() -> &'static IntCounter {
    static RECONNECTS: LazyLock<IntCounter> = LazyLock::new(|| {
        let name = "hookline_nats_reconnects_total";
        IntCounter::new(name, "Connections to NATS that were lost and made again")
            .expect("the name is sound")
    });
    &RECONNECTS
}

/// Connections that were lost and not made again.
static LOST: AtomicU64 = AtomicU64::new(0);

async fn log_event(event: async_nats::Event) {
    match event {
        async_nats::Event::Connected => {
            CONNECTS.send_modify(|connects| *connects += 1);
            let lost = LOST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lost| {
                lost.checked_sub(1)
            });
            if lost.is_ok() {
                reconnects().inc();
            }
            tracing::info!("connected to NATS");
        }
        async_nats::Event::Disconnected => {
            LOST.fetch_add(1, Ordering::Relaxed);
            disconnects().notify_one();
            tracing::warn!("lost the connection to NATS");
        }
        async_nats::Event::SlowConsumer(subscription) => {
            tracing::debug!(
                subscription,
                "messages were dropped and will be redelivered"
            );
        }
        async_nats::Event::ServerError(error) => report(&error.to_string()),
        other => tracing::debug!(event = %other, "NATS"),
    }
}

fn report(error: &str) {
    let Some((_, what)) = error.split_once("Permissions Violation for ") else {
        tracing::warn!(error, "NATS reports an error");
        return;
    };
    FORBIDDEN.send_replace(what.to_owned());
    // A subject that cannot be published to may be one of thousands.
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock();
    if last.is_none_or(|last| last.elapsed() >= RETRY) {
        *last = Some(Instant::now());
        let error = Error::Forbidden(what.to_owned());
        tracing::error!("{error}");
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

    #[test]
    fn user_and_password_are_taken_from_the_url() {
        let login = |urls| options(&["--nats-url", urls]).login();
        let user = |user: &str, password: &str| Login::User(user.to_owned(), password.to_owned());
        for (urls, want) in [
            ("nats://localhost:4222", Login::None),
            ("nats://a:b@localhost:4222", user("a", "b")),
            ("nats://a%40b:%2F%25@localhost", user("a@b", "/%")),
            ("nats://a:b@one,nats://a:b@two", user("a", "b")),
            ("nats://t%3Ak@localhost", Login::Token("t:k".to_owned())),
            ("nats://:t@localhost", Login::Token("t".to_owned())),
        ] {
            assert!(login(urls).is_ok_and(|login| login == want), "{urls}");
        }
        for urls in [
            "nats://a:b@one,nats://two",
            "nats://a:b@one,nats://a:c@two",
            "nats://a:%FF@one",
        ] {
            assert!(login(urls).is_err(), "{urls}");
        }
        let both = ["--nats-url", "nats://a:b@c", "--nats-credentials", "file"];
        assert!(options(&both).login().is_err());
    }
}
