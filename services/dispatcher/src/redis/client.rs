//! The connection to Redis: one server, a cluster, or a master behind sentinels.
//!
//! Redis is not required. A call has a short deadline; after a failure calls are skipped, and a loop probes until
//! Redis answers again. A cluster has this state for each of several groups of hooks, so that a lost master leaves
//! most hooks of other masters alone. Nothing here ever needs a restart.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, ServerErrorKind, Value,
};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::redis::keys::Key;
use crate::redis::script_call::ScriptCall;
use crate::redis::url::{Form, RedisUrl};

/// How long a call may take. Redis answers in a fraction of a millisecond, and a delivery waits for the call.
const DEADLINE: Duration = Duration::from_millis(500);
/// A call that ends this late says nothing about Redis: the process itself was suspended.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(2);
/// Between probes while Redis does not answer.
const PROBE: Duration = Duration::from_millis(250);
/// Groups of hooks in a cluster, each with its own state.
const GROUPS: usize = 64;
/// Failing scripts are logged once in this time.
const SCRIPT_FAILURES: Duration = Duration::from_secs(30);
const NO_ANSWER: &str = "no answer in time";

/// Clones share it.
#[derive(Clone)]
pub(crate) struct RedisClient(Arc<Inner>);

struct Inner {
    connector: Connector,
    current: ArcSwapOption<Connection>,
    groups: Vec<Group>,
    down: Notify,
    script_failure_logged: Mutex<Option<Instant>>,
    /// Hosts and ports, for the log.
    address: String,
    metrics: Metrics,
}

/// The state of the part of Redis that holds some of the hooks.
struct Group {
    up: AtomicBool,
    /// The hook whose call failed last.
    hook: Mutex<String>,
}

enum Connector {
    One(redis::Client),
    Cluster(ClusterClient),
    Sentinels(AsyncMutex<redis::sentinel::SentinelClient>),
}

#[derive(Clone)]
enum Connection {
    One(ConnectionManager),
    Cluster(ClusterConnection),
    Master(MultiplexedConnection),
}

impl RedisClient {
    /// Returns the client and its loop, which connects and probes.
    pub(crate) fn new(
        url: &RedisUrl,
        metrics: Metrics,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), RedisError> {
        let connector = Connector::new(url)?;
        let groups = match connector {
            Connector::Cluster(_) => GROUPS,
            Connector::One(_) | Connector::Sentinels(_) => 1,
        };
        let inner = Arc::new(Inner {
            connector,
            current: ArcSwapOption::empty(),
            groups: (0..groups).map(|_| Group::new()).collect(),
            down: Notify::new(),
            script_failure_logged: Mutex::default(),
            address: url.address(),
            metrics,
        });
        inner.metrics.redis_connected(false);
        let watched = Arc::clone(&inner);
        let keep_up = async move { watched.keep_up().await };
        Ok((Self(inner), keep_up))
    }

    #[must_use]
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.0.connector, Connector::Cluster(_))
    }

    /// The number of groups of hooks that fail independently.
    #[must_use]
    pub(crate) fn groups(&self) -> usize {
        self.0.groups.len()
    }

    /// From 0.
    #[must_use]
    pub(crate) fn group_of(&self, hook: &str) -> usize {
        self.0.group_of(hook)
    }

    /// Hosts and ports, without user and password.
    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }

    /// Whether all of Redis answers.
    #[must_use]
    pub(crate) fn is_up(&self) -> bool {
        self.0.is_up()
    }

    /// Runs a script, in a cluster on keys of one hook. None if Redis does not answer or the script fails.
    pub(crate) async fn call<T: FromRedisValue>(
        &self,
        hook: &str,
        call: &ScriptCall<'_>,
    ) -> Option<T> {
        let group = &self.0.groups[self.0.group_of(hook)];
        if !group.up.load(Ordering::Relaxed) {
            return None;
        }
        let current = self.0.current.load_full()?;
        let mut connection = Connection::clone(&current);
        let began = Instant::now();
        let answer = tokio::time::timeout(DEADLINE, call.make(&mut connection));
        let reason = match answer.await {
            Ok(Ok(answer)) => {
                self.0.metrics.redis_answered(call.kind, began.elapsed());
                return Some(answer);
            }
            Ok(Err(error)) if is_scripts_own(&error) => {
                self.0.script_failed(hook, &error);
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => NO_ANSWER.to_owned(),
        };
        if began.elapsed() < STANDSTILL {
            self.0.lost(group, hook, &reason);
        }
        None
    }
}

impl Group {
    fn new() -> Self {
        Self {
            up: AtomicBool::new(false),
            hook: Mutex::default(),
        }
    }
}

impl Inner {
    fn group_of(&self, hook: &str) -> usize {
        let groups = self.groups.len();
        if groups == 1 {
            return 0;
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(hook);
        hash as usize % groups
    }

    fn is_up(&self) -> bool {
        self.groups
            .iter()
            .all(|group| group.up.load(Ordering::Relaxed))
    }

    /// Affects only this hook. Logs one line for all failures in a while.
    fn script_failed(&self, hook: &str, error: &RedisError) {
        let mut logged = self.script_failure_logged.lock();
        if logged.is_none_or(|at| at.elapsed() > SCRIPT_FAILURES) {
            *logged = Some(Instant::now());
            tracing::error!(
                hook,
                %error,
                "a Redis script failed: this hook's deliveries go on, repeats are possible"
            );
        }
    }

    fn lost(&self, group: &Group, hook: &str, reason: &str) {
        hook.clone_into(&mut group.hook.lock());
        let was_up = self.is_up();
        group.up.store(false, Ordering::Relaxed);
        self.metrics.redis_connected(false);
        self.down.notify_one();
        if was_up {
            tracing::warn!(
                redis = self.address,
                reason,
                "Redis does not answer: deliveries go on, repeats are possible"
            );
        }
    }

    /// Connects, and probes the groups that do not answer.
    async fn keep_up(&self) {
        let (mut was_up, mut is_logged) = (false, false);
        loop {
            if self.is_up() {
                self.down.notified().await;
            }
            match self.probe_all().await {
                Ok(()) => {
                    self.metrics.redis_connected(true);
                    if was_up {
                        tracing::info!(redis = self.address, "Redis answers again");
                    }
                    was_up = true;
                }
                Err(reason) => {
                    if !was_up && !is_logged {
                        tracing::warn!(redis = self.address, reason, "Redis is not there yet");
                        is_logged = true;
                    }
                    tokio::time::sleep(PROBE).await;
                }
            }
        }
    }

    async fn probe_all(&self) -> Result<(), String> {
        let connection = self.connected().await?;
        let silent = |group: &&Group| !group.up.load(Ordering::Relaxed);
        let probes = self
            .groups
            .iter()
            .filter(silent)
            .map(|group| self.probe(group, connection.clone()));
        let answers = futures::future::join_all(probes).await;
        let all: Result<(), String> = answers.into_iter().collect();
        if all.is_err() && matches!(connection, Connection::Master(_)) {
            // There may be a new master.
            self.current.store(None);
        }
        all
    }

    /// Writes, since a read-only replica is of no use.
    async fn probe(&self, group: &Group, mut connection: Connection) -> Result<(), String> {
        let key = Key::Health(&group.hook.lock()).to_string();
        let mut set = redis::cmd("SET");
        set.arg(key).arg("").arg("PX").arg(1_000);
        let answer = set.exec_async(&mut connection);
        in_time(DEADLINE, answer).await?;
        group.up.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn connected(&self) -> Result<Connection, String> {
        if let Some(connection) = self.current.load_full() {
            return Ok(Connection::clone(&connection));
        }
        // The manager connects behind the scenes, and would not say why it cannot.
        if let Connector::One(client) = &self.connector {
            let connection = client.get_multiplexed_async_connection();
            in_time(CONNECT, connection).await?;
        }
        let connection = in_time(CONNECT, self.connector.connect()).await?;
        self.current.store(Some(Arc::new(connection.clone())));
        Ok(connection)
    }
}

impl Connector {
    fn new(url: &RedisUrl) -> Result<Self, redis::RedisError> {
        Ok(match &url.form {
            Form::One(info) => Self::One(match &url.certificates {
                None => redis::Client::open(info.clone())?,
                Some(certificates) => {
                    redis::Client::build_with_tls(info.clone(), certificates.clone())?
                }
            }),
            Form::Cluster(nodes) => {
                let mut builder = ClusterClient::builder(nodes.clone())
                    .connection_timeout(CONNECT)
                    .response_timeout(DEADLINE)
                    .retries(2)
                    .max_retry_wait(100);
                if let Some(certificates) = &url.certificates {
                    builder = builder.certs(certificates.clone());
                }
                Self::Cluster(builder.build()?)
            }
            Form::Sentinels(sentinels) => Self::Sentinels(AsyncMutex::new(
                sentinels.client(url.certificates.as_ref())?,
            )),
        })
    }

    async fn connect(&self) -> Result<Connection, redis::RedisError> {
        Ok(match self {
            Self::One(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(DEADLINE))
                    .set_min_delay(Duration::from_millis(100))
                    .set_max_delay(Duration::from_secs(1));
                Connection::One(ConnectionManager::new_lazy_with_config(
                    client.clone(),
                    config,
                )?)
            }
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
            Self::Sentinels(client) => {
                Connection::Master(client.lock().await.get_async_connection().await?)
            }
        })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
            Self::Master(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Master(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
            Self::Master(connection) => connection.get_db(),
        }
    }
}

/// The error is the reason in words.
async fn in_time<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, redis::RedisError>>,
) -> Result<T, String> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result.map_err(|error| explained(&error)),
        Err(_) => Err(NO_ANSWER.to_owned()),
    }
}

/// What is wrong, and which setting may be.
fn explained(error: &RedisError) -> String {
    let text = error.to_string();
    let is_refused = error.kind() == ErrorKind::AuthenticationFailed
        || ["NOAUTH", "WRONGPASS", "NOPERM"]
            .iter()
            .any(|code| text.contains(code));
    if is_refused {
        format!(
            "it refuses the user or password in HOOKLINE_REDIS_URL, or forbids the user a command: {text}"
        )
    } else if text.contains("cluster support disabled") {
        "it is no Redis Cluster: HOOKLINE_REDIS_URL should begin with redis://".to_owned()
    } else if text.contains("timed out") || text.contains("Parse error") {
        "it does not answer as Redis does, with TLS if HOOKLINE_REDIS_URL begins with rediss://"
            .to_owned()
    } else {
        format!("{text}; check HOOKLINE_REDIS_URL")
    }
}

/// Whether the script failed on its data while Redis itself is well.
fn is_scripts_own(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot)
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::Parse => true,
        _ => error.code() == Some("WRONGTYPE"),
    }
}
