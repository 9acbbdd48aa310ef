//! A real nats-server with JetStream that syncs before it acknowledges.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Config;
use futures::TryStreamExt;

use crate::process::Process;
use crate::wait::eventually;
use crate::{SOON, binaries, ports, wire};

/// One server or a cluster of them, and a client.
#[derive(Debug)]
pub struct NatsServer {
    nodes: Vec<Node>,
    client: Option<async_nats::Client>,
}

#[derive(Debug)]
struct Node {
    process: Process,
    port: u16,
}

/// How much a server stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Store {
    /// What the disk has.
    #[default]
    Unlimited,
    /// What the disk has, synced now and then only.
    Unsynced,
    /// So many bytes, of which its clients are told nothing.
    Server(u64),
    /// So many bytes for the account, as its clients are told.
    Account(u64),
}

impl NatsServer {
    /// Describes a server that keeps its data in `dir`; [`Self::start`] runs it.
    ///
    /// # Errors
    /// When the program is missing or `dir` cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::with_store(dir, Store::Unlimited)
    }

    /// As [`Self::new`], with so much storage.
    ///
    /// # Errors
    /// When the program is missing or `dir` cannot be written.
    pub fn with_store(dir: &Path, store: Store) -> Result<Self> {
        let node = Node::new(dir, "nats-server", store, "")?;
        Ok(Self::of(vec![node]))
    }

    /// Describes a cluster of so many servers.
    ///
    /// # Errors
    /// When the program is missing or `dir` cannot be written.
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

    fn of(nodes: Vec<Node>) -> Self {
        Self {
            nodes,
            client: None,
        }
    }

    /// Starts the server, or starts it again on the same port and data.
    ///
    /// # Errors
    /// When it does not answer in time.
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
            let client = async_nats::connect(&servers[..]).await?;
            let jetstream = jetstream::new(client.clone());
            if servers.len() == 1 {
                jetstream.query_account().await?;
            } else {
                // The servers know each other once one can lead the others.
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

    /// Kills every server; the data stays for the next start.
    pub fn kill(&mut self) {
        for node in &mut self.nodes {
            node.process.kill();
        }
    }

    /// Which server of a cluster leads a stream.
    ///
    /// # Errors
    /// When none does in time.
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

    /// Kills the server of a cluster that leads a stream, and says which one that is.
    ///
    /// # Errors
    /// When the stream has no leader.
    pub async fn kill_leader(&mut self, stream: &str) -> Result<usize> {
        let leader = self.leader(stream).await?;
        self.nodes[leader].process.kill();
        Ok(leader)
    }

    /// Starts a server of a cluster again.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn start_node(&mut self, number: usize) -> Result<()> {
        self.nodes[number].process.start()
    }

    /// Where it listens; of a cluster, all of its servers.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(Node::url).collect();
        urls.join(",")
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.nodes[0].port
    }

    /// The processes, for their logs.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.nodes.iter().map(|node| &node.process)
    }

    /// A plain client.
    ///
    /// # Panics
    /// When the server was never started.
    #[must_use]
    pub fn client(&self) -> &async_nats::Client {
        self.client.as_ref().expect("the server was started")
    }

    /// A JetStream client.
    #[must_use]
    pub fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client().clone())
    }

    /// A stream with its state of now.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn stream(&self, name: &str) -> Result<jetstream::stream::Stream> {
        self.jetstream()
            .get_stream(name)
            .await
            .with_context(|| format!("stream {name}"))
    }

    /// How many messages a stream holds.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn count(&self, name: &str) -> Result<u64> {
        Ok(self.stream(name).await?.cached_info().state.messages)
    }

    /// How many events are not dealt with: acked ones stay in their stream for a moment.
    ///
    /// # Errors
    /// When there is no such stream or consumer.
    pub async fn open_events(&self) -> Result<u64> {
        let stream = self.stream(wire::EVENTS).await?;
        let consumer = stream.consumer_info(wire::DISPATCHERS).await?;
        Ok(consumer.num_pending + consumer.num_ack_pending as u64)
    }

    /// How many messages of a stream are given out and not acked.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn unacked(&self, name: &str) -> Result<usize> {
        let stream = self.stream(name).await?;
        let consumers: Vec<_> = stream.consumers().try_collect().await?;
        Ok(consumers.iter().map(|info| info.num_ack_pending).sum())
    }

    /// How many events may still be on their way from the outbox to the event stream.
    ///
    /// # Errors
    /// When one of their streams is not there.
    pub async fn unsourced(&self) -> Result<u64> {
        let stream = self.stream(wire::EVENTS).await?;
        let sources = &stream.cached_info().sources;
        if sources.iter().all(|source| source.active.is_some()) {
            return Ok(sources.iter().map(|source| source.lag).sum());
        }
        // A source that is not set up has no lag. What is purged has come through.
        self.outbox_entries().await
    }

    /// How many events stand in the outbox, come through or not.
    ///
    /// # Errors
    /// When there is no bucket.
    pub async fn outbox_entries(&self) -> Result<u64> {
        let bucket = self.stream(wire::BUCKET).await?;
        let subjects = bucket.info_with_subjects("$KV.hookline.outbox.>").await?;
        let counts: Vec<_> = subjects.try_collect().await?;
        Ok(counts.iter().map(|(_, count)| *count as u64).sum())
    }

    /// All messages of a small stream, oldest first.
    ///
    /// # Errors
    /// When there is no such stream.
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

    /// The dead letters, once there are at least `count`.
    ///
    /// # Errors
    /// When there are fewer for too long.
    pub async fn dead_letters(&self, count: usize) -> Result<Vec<StreamMessage>> {
        eventually(SOON, "dead letters", async || {
            let dead = self.messages(wire::DEAD).await?;
            anyhow::ensure!(dead.len() >= count, "{} of {count}", dead.len());
            Ok(dead)
        })
        .await
    }

    /// Publishes as `nats pub` does: a body, no headers, no answer awaited.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn publish(&self, subject: impl Into<String>, body: impl AsRef<[u8]>) -> Result<()> {
        let body = bytes::Bytes::copy_from_slice(body.as_ref());
        self.client().publish(subject.into(), body).await?;
        self.client().flush().await?;
        Ok(())
    }

    /// Publishes with a `Nats-Msg-Id`; tells whether the server took it for a
    /// duplicate.
    ///
    /// # Errors
    /// When the server does not acknowledge it.
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

    /// Deletes a consumer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_consumer(&self, stream: &str, consumer: &str) -> Result<()> {
        self.stream(stream).await?.delete_consumer(consumer).await?;
        Ok(())
    }

    /// Has a consumer deliver nothing for a while; zero: go on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pause_consumer(&self, stream: &str, consumer: &str, time: Duration) -> Result<()> {
        let until = SystemTime::now() + time;
        let stream = self.stream(stream).await?;
        stream.pause_consumer(consumer, until.into()).await?;
        Ok(())
    }

    /// Shortens a stream's duplicate window, so that a test can outwait it.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn set_duplicate_window(&self, name: &str, window: Duration) -> Result<()> {
        self.update(name, |config| config.duplicate_window = window)
            .await
    }

    /// Changes the size that a stream may have.
    ///
    /// # Errors
    /// When the server refuses.
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

/// Why a message is a dead letter.
#[must_use]
pub fn reason(message: &StreamMessage) -> &str {
    let value = message.headers.get(wire::REASON);
    value.map_or("", |value| value.as_str())
}

impl Node {
    fn new(dir: &Path, name: &str, store: Store, cluster: &str) -> Result<Self> {
        let port = ports::free()?;
        let (limit, account) = match store {
            Store::Unlimited | Store::Unsynced => (String::new(), String::new()),
            Store::Server(bytes) => (format!(", max_file_store: {bytes}"), String::new()),
            Store::Account(bytes) => (
                String::new(),
                format!(
                    "accounts {{ HOOKLINE {{ jetstream {{ max_file: {bytes} }}\n\
                     users: [ {{ user: hookline, password: hookline }} ] }} }}\n\
                     no_auth_user: hookline\n"
                ),
            ),
        };
        let sync = if store == Store::Unsynced {
            "2m"
        } else {
            "always"
        };
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\n\
             max_payload: 2MB\n\
             jetstream {{ store_dir: \"{}\", sync_interval: {sync}{limit} }}\n{account}{cluster}",
            dir.join(format!("{name}-data")).display()
        );
        let path = dir.join(format!("{name}.conf"));
        std::fs::write(&path, config)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let process = Process::new(name, binaries::server("nats-server")?, dir)
            .args(["-c".to_owned(), path.display().to_string()]);
        Ok(Self { process, port })
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
