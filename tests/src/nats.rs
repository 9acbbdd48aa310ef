//! Real nats-servers with JetStream. Unless a scenario says otherwise, they sync before they acknowledge.
//!
//! They have the accounts and permissions that are shipped; who names no user is the operator.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Config;
use futures::TryStreamExt;

use crate::process::Process;
use crate::secrets::Secrets;
use crate::wait::eventually;
use crate::{SOON, binaries, ports, wire};

/// A server or a cluster of servers, and a client.
#[derive(Debug)]
pub struct NatsServer {
    nodes: Vec<Node>,
    /// Those of a server with the configuration for production.
    secrets: Option<Secrets>,
    client: Option<async_nats::Client>,
}

#[derive(Debug)]
struct Node {
    config: PathBuf,
    data: PathBuf,
    process: Process,
    port: u16,
}

/// A server's storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Store {
    /// As large as the disk.
    #[default]
    Unlimited,
    /// As large as the disk, synced only every two minutes.
    Unsynced,
    /// A limit of the server in bytes, which clients cannot see.
    Server(u64),
    /// A limit of the account in bytes, which clients can see.
    Account(u64),
}

impl NatsServer {
    /// A server that keeps its data in `dir`; [`Self::start`] runs it.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::with_store(dir, Store::Unlimited)
    }

    pub fn with_store(dir: &Path, store: Store) -> Result<Self> {
        let node = Node::new(dir, "nats-server", store, "")?;
        Ok(Self::of(vec![node]))
    }

    pub fn cluster(dir: &Path, count: usize) -> Result<Self> {
        let ports: Vec<_> = (0..count).map(|_| ports::free()).collect::<Result<_>>()?;
        let routes: Vec<_> = ports
            .iter()
            .map(|port| format!("nats-route://127.0.0.1:{port}"))
            .collect();
        let node = |(number, port): (usize, &u16)| {
            let name = node_name(number);
            let cluster = format!(
                "server_name: {name}\n\
                 cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{}] }}\n",
                routes.join(", ")
            );
            Node::new(dir, &name, Store::Unlimited, &cluster)
        };
        let nodes = ports.iter().enumerate().map(node);
        Ok(Self::of(nodes.collect::<Result<_>>()?))
    }

    /// Nodes with the configuration for production.
    pub fn production(dir: &Path, count: usize, secrets: &Secrets) -> Result<Self> {
        let ports: Vec<_> = (0..count).map(|_| ports::free()).collect::<Result<_>>()?;
        let routes: Vec<_> = ports
            .iter()
            .map(|port| format!("nats-route://127.0.0.1:{port}"))
            .collect();
        let node = |(number, port): (usize, &u16)| {
            let mut node = Node::production(dir, number, secrets)?;
            if count > 1 {
                let listen = format!("nats-route://127.0.0.1:{port}");
                let cluster = ["--cluster", &listen, "--routes", &routes.join(",")];
                node.process = node.process.more_args(cluster);
            }
            Ok(node)
        };
        let nodes = ports.iter().enumerate().map(node);
        Ok(Self {
            secrets: Some(secrets.clone()),
            ..Self::of(nodes.collect::<Result<_>>()?)
        })
    }

    fn of(nodes: Vec<Node>) -> Self {
        Self {
            nodes,
            secrets: None,
            client: None,
        }
    }

    fn options(&self, user: &str) -> async_nats::ConnectOptions {
        let password = self.password(user);
        let options = async_nats::ConnectOptions::with_user_and_password(user.into(), password);
        match &self.secrets {
            Some(secrets) => options.add_root_certificates(secrets.authority()),
            None => options,
        }
    }

    fn password(&self, user: &str) -> String {
        match &self.secrets {
            Some(secrets) => secrets.nats_password(user),
            None => password(user),
        }
    }

    /// Takes a right from a user, at the next start.
    pub fn forbid(&self, user: &str, right: &str) -> Result<()> {
        for node in &self.nodes {
            let config = std::fs::read_to_string(&node.config)?;
            let place = config.find(&format!("user: {user}\n"));
            let (before, rest) = config.split_at(place.context("there is no such user")?);
            let right = format!("\"{right}\"");
            anyhow::ensure!(rest.contains(&right), "{user} has no {right}");
            // An empty list would allow all.
            let rest = rest.replacen(&right, "\"nothing\"", 1);
            std::fs::write(&node.config, format!("{before}{rest}"))?;
        }
        Ok(())
    }

    /// Starts the server, or restarts it on the same port and data.
    pub async fn start(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.process.start()?;
        }
        let servers: Vec<async_nats::ServerAddr> = self
            .nodes
            .iter()
            .map(|node| node.url().parse())
            .collect::<Result<_, _>>()?;
        let client = eventually(SOON, "NATS answers", async || {
            for node in &mut self.nodes {
                node.process.check_running()?;
            }
            let client = match &self.secrets {
                Some(_) => self.options("operator").connect(&servers[..]).await?,
                None => async_nats::connect(&servers[..]).await?,
            };
            let mut jetstream = jetstream::new(client.clone());
            // What servers that just met do not answer, they never do.
            jetstream.set_timeout(Duration::from_secs(1));
            if servers.len() == 1 {
                jetstream.query_account().await?;
            } else {
                // A replicated stream needs a leader: the servers know each other by then.
                let probe = Config {
                    name: "PROBE".to_owned(),
                    num_replicas: servers.len(),
                    ..Config::default()
                };
                jetstream.create_stream(probe).await?;
                jetstream.delete_stream("PROBE").await?;
            }
            Ok(client)
        })
        .await?;
        self.client = Some(client);
        Ok(())
    }

    /// Kills every server. The data stays for the next start.
    pub fn kill(&mut self) {
        for node in &mut self.nodes {
            node.process.kill();
        }
    }

    /// Kills every server, and removes its data.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill();
        for node in &self.nodes {
            std::fs::remove_dir_all(&node.data)?;
        }
        Ok(())
    }

    /// The number of the server that leads a stream.
    pub async fn leader(&self, stream: &str) -> Result<usize> {
        eventually(SOON, "the stream has a leader", async || {
            let stream = self.stream(stream).await?;
            let cluster = stream.cached_info().cluster.as_ref();
            let leader = cluster.and_then(|cluster| cluster.leader.clone());
            let leader = leader.context("it has none")?;
            let number = (0..self.nodes.len()).find(|number| node_name(*number) == leader);
            number.with_context(|| format!("there is no {leader}"))
        })
        .await
    }

    /// Kills the server that leads a stream, and returns its number.
    pub async fn kill_leader(&mut self, stream: &str) -> Result<usize> {
        let leader = self.leader(stream).await?;
        self.nodes[leader].process.kill();
        Ok(leader)
    }

    pub fn start_node(&mut self, number: usize) -> Result<()> {
        self.nodes[number].process.start()
    }

    /// Of a cluster, the URLs of all servers.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(Node::url).collect();
        urls.join(",")
    }

    /// [`Self::url`] for a user of the shipped accounts.
    #[must_use]
    pub fn url_as(&self, user: &str) -> String {
        let login = format!("nats://{user}:{}@", self.password(user));
        self.url().replace("nats://", &login)
    }

    pub async fn client_as(&self, user: &str) -> Result<async_nats::Client> {
        Ok(self.options(user).connect(self.nodes[0].url()).await?)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.nodes[0].port
    }

    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.nodes.iter().map(|node| &node.process)
    }

    #[must_use]
    pub fn client(&self) -> &async_nats::Client {
        self.client.as_ref().expect("the server was started")
    }

    #[must_use]
    pub fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client().clone())
    }

    /// A stream with its current state.
    pub async fn stream(&self, name: &str) -> Result<jetstream::stream::Stream> {
        self.jetstream()
            .get_stream(name)
            .await
            .with_context(|| format!("stream {name}"))
    }

    /// The number of messages in a stream.
    pub async fn count(&self, name: &str) -> Result<u64> {
        Ok(self.stream(name).await?.cached_info().state.messages)
    }

    /// Events that are not settled yet. Not the size of the stream: acked events are purged a moment later.
    pub async fn open_events(&self) -> Result<u64> {
        let stream = self.stream(wire::EVENTS).await?;
        let consumer = stream.consumer_info(wire::DISPATCHERS).await?;
        Ok(consumer.num_pending + consumer.num_ack_pending as u64)
    }

    /// Messages of a stream that are delivered and not acked.
    pub async fn unacked(&self, name: &str) -> Result<usize> {
        let stream = self.stream(name).await?;
        let consumers: Vec<_> = stream.consumers().try_collect().await?;
        Ok(consumers.iter().map(|info| info.num_ack_pending).sum())
    }

    /// Events that may still be on their way from the outbox to the event stream.
    pub async fn unsourced(&self) -> Result<u64> {
        let stream = self.stream(wire::EVENTS).await?;
        let sources = &stream.cached_info().sources;
        if sources.iter().all(|source| source.active.is_some()) {
            return Ok(sources.iter().map(|source| source.lag).sum());
        }
        // A source that is not set up yet reports no lag. Purged entries have come through.
        self.outbox_entries().await
    }

    /// Entries of the outbox, sourced or not.
    pub async fn outbox_entries(&self) -> Result<u64> {
        self.entries("$KV.hookline.outbox.>").await
    }

    /// Entries of the bucket under these keys.
    pub async fn entries(&self, keys: &str) -> Result<u64> {
        let bucket = self.stream(wire::BUCKET).await?;
        let subjects = bucket.info_with_subjects(keys).await?;
        let counts: Vec<_> = subjects.try_collect().await?;
        Ok(counts.iter().map(|(_, count)| *count as u64).sum())
    }

    /// All messages of a small stream, oldest first.
    pub async fn messages(&self, name: &str) -> Result<Vec<StreamMessage>> {
        let stream = self.stream(name).await?;
        let state = &stream.cached_info().state;
        let mut messages = Vec::new();
        if state.messages == 0 {
            return Ok(messages);
        }
        for sequence in state.first_sequence..=state.last_sequence {
            // Sequences in between may be deleted.
            if let Ok(message) = stream.get_raw_message(sequence).await {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    /// Waits until there are at least `count` dead letters.
    pub async fn dead_letters(&self, count: usize) -> Result<Vec<StreamMessage>> {
        eventually(SOON, "dead letters", async || {
            let dead = self.messages(wire::DEAD).await?;
            anyhow::ensure!(dead.len() >= count, "{} of {count}", dead.len());
            Ok(dead)
        })
        .await
    }

    /// Publishes as `nats pub` does: without headers, not waiting for an answer.
    pub async fn publish(&self, subject: impl Into<String>, body: impl AsRef<[u8]>) -> Result<()> {
        let body = bytes::Bytes::copy_from_slice(body.as_ref());
        self.client().publish(subject.into(), body).await?;
        self.client().flush().await?;
        Ok(())
    }

    /// Publishes with a `Nats-Msg-Id`. Returns whether the server dropped it as a duplicate.
    pub async fn publish_with_id(
        &self,
        subject: impl Into<String>,
        id: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<bool> {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let body = bytes::Bytes::copy_from_slice(body.as_ref());
        let jetstream = self.jetstream();
        let ack = jetstream
            .publish_with_headers(subject.into(), headers, body)
            .await?
            .await?;
        Ok(ack.duplicate)
    }

    pub async fn delete_consumer(&self, stream: &str, consumer: &str) -> Result<()> {
        self.stream(stream).await?.delete_consumer(consumer).await?;
        Ok(())
    }

    /// Pauses a consumer for a while; zero resumes it.
    pub async fn pause_consumer(&self, stream: &str, consumer: &str, time: Duration) -> Result<()> {
        let until = SystemTime::now() + time;
        let stream = self.stream(stream).await?;
        stream.pause_consumer(consumer, until.into()).await?;
        Ok(())
    }

    /// In two steps: a change has the server look for ids to forget, and if it does so before it knows the
    /// new window, it looks again only after the old one.
    pub async fn set_duplicate_window(&self, name: &str, window: Duration) -> Result<()> {
        for window in [2 * window, window] {
            self.update(name, |config| config.duplicate_window = window)
                .await?;
        }
        Ok(())
    }

    /// Fills storage by so many MiB, in a stream of its own, `FILL`.
    pub async fn fill(&self, mib: usize) -> Result<()> {
        let jetstream = self.jetstream();
        let fill = jetstream::stream::Config {
            name: "FILL".to_owned(),
            subjects: vec!["fill".to_owned()],
            ..Default::default()
        };
        jetstream.create_stream(fill).await?;
        for _ in 0..mib {
            let body = vec![0; 1 << 20];
            jetstream.publish("fill", body.into()).await?.await?;
        }
        Ok(())
    }

    pub async fn set_max_bytes(&self, name: &str, bytes: i64) -> Result<()> {
        self.update(name, |config| config.max_bytes = bytes).await
    }

    async fn update(&self, name: &str, change: impl FnOnce(&mut Config)) -> Result<()> {
        let mut config = self.stream(name).await?.cached_info().config.clone();
        change(&mut config);
        self.jetstream().update_stream(config).await?;
        Ok(())
    }
}

/// The users of the shipped accounts.
const USERS: [&str; 6] = [
    "system",
    "operator",
    "gateway",
    "dispatcher",
    "injector",
    "observer",
];

/// The shipped accounts and permissions.
#[must_use]
pub fn accounts() -> PathBuf {
    binaries::workspace().join("deploy/nats/accounts.conf")
}

pub(crate) fn password(user: &str) -> String {
    format!("of{user}")
}

/// URLs with a user of the shipped accounts.
#[must_use]
pub fn login(user: &str, urls: &str) -> String {
    urls.replace("nats://", &format!("nats://{user}:{}@", password(user)))
}

#[must_use]
pub fn reason(message: &StreamMessage) -> &str {
    let value = message.headers.get(wire::REASON);
    value.map_or("", |value| value.as_str())
}

impl Node {
    fn new(dir: &Path, name: &str, store: Store, cluster: &str) -> Result<Self> {
        let port = ports::free()?;
        let shipped = accounts();
        let accounts = std::fs::read_to_string(&shipped)
            .with_context(|| format!("cannot read {}", shipped.display()))?;
        let limit = match store {
            Store::Server(bytes) => format!(", max_file_store: {bytes}"),
            _ => String::new(),
        };
        let storage = match store {
            Store::Account(bytes) => bytes.to_string(),
            _ => "-1".to_owned(),
        };
        let sync = if store == Store::Unsynced {
            "2m"
        } else {
            "always"
        };
        let data = dir.join(format!("{name}-data"));
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\n\
             max_payload: 2MB\n\
             jetstream {{ store_dir: \"{}\", sync_interval: {sync}{limit} }}\n\
             no_auth_user: operator\n{cluster}{accounts}",
            data.display()
        );
        let path = dir.join(format!("{name}.conf"));
        std::fs::write(&path, config)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut process = Process::new(name, binaries::server("nats-server")?, dir)
            .args(["-c".to_owned(), path.display().to_string()]);
        for user in USERS {
            let variable = format!("HOOKLINE_NATS_{}_PASSWORD", user.to_uppercase());
            process.set_env(&variable, password(user));
        }
        process.set_env("HOOKLINE_NATS_STORAGE", storage);
        Ok(Self {
            config: path,
            data,
            process,
            port,
        })
    }

    /// With the configuration for production, a folder and a name of its own.
    fn production(dir: &Path, number: usize, secrets: &Secrets) -> Result<Self> {
        let (name, port) = (node_name(number), ports::free()?);
        let config = binaries::workspace().join("deploy/nats/cluster.conf");
        let data = dir.join(format!("{name}-data"));
        let monitoring = ports::free()?.to_string();
        let mut process = Process::new(&name, binaries::server("nats-server")?, dir).args([
            "-c",
            &config.display().to_string(),
            "-n",
            &name,
            "-a",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-m",
            &monitoring,
            "-sd",
            &data.display().to_string(),
        ]);
        for (name, value) in secrets.of_nats() {
            process.set_env(&name, value);
        }
        process.set_env("HOOKLINE_NATS_STORAGE", "40GB");
        Ok(Self {
            config,
            data,
            process,
            port,
        })
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

fn node_name(number: usize) -> String {
    format!("nats-{}", number + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::NatsServer;

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_messages() -> crate::Result {
        let dir = tempfile::tempdir()?;
        let mut nats = NatsServer::new(dir.path())?;
        nats.start().await?;
        let stream = async_nats::jetstream::stream::Config {
            name: "S".to_owned(),
            subjects: vec!["s.>".to_owned()],
            ..Default::default()
        };
        nats.jetstream().create_stream(stream).await?;
        assert!(!nats.publish_with_id("s.a", "id", "1").await?);
        assert!(nats.publish_with_id("s.a", "id", "2").await?);

        nats.kill();
        nats.start().await?;

        nats.set_duplicate_window("S", Duration::from_secs(1))
            .await?;
        let messages = nats.messages("S").await?;
        assert_eq!(messages.len(), 1);
        assert_eq!(&messages[0].payload[..], b"1");
        assert_eq!(nats.count("S").await?, 1);
        assert_eq!(nats.unacked("S").await?, 0);
        Ok(())
    }
}
