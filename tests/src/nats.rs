//! A real nats-server with JetStream that syncs before it acknowledges.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::message::StreamMessage;
use futures::TryStreamExt;

use crate::process::Process;
use crate::wait::eventually;
use crate::{SOON, binaries, ports, wire};

/// The server and a client of it.
#[derive(Debug)]
pub struct NatsServer {
    process: Process,
    port: u16,
    client: Option<async_nats::Client>,
}

impl NatsServer {
    /// Describes a server that keeps its data in `dir`; [`Self::start`] runs it.
    ///
    /// # Errors
    /// When the program is missing or `dir` cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::with_store(dir, None)
    }

    /// As [`Self::new`], with so many bytes of storage.
    ///
    /// # Errors
    /// When the program is missing or `dir` cannot be written.
    pub fn with_store(dir: &Path, bytes: Option<u64>) -> Result<Self> {
        let port = ports::free()?;
        let config = write_config(dir, port, bytes)?;
        let process = Process::new("nats-server", binaries::server("nats-server")?, dir)
            .args(["-c".to_owned(), config.display().to_string()]);
        Ok(Self {
            process,
            port,
            client: None,
        })
    }

    /// Starts the server, or starts it again on the same port and data.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn start(&mut self) -> Result<()> {
        self.process.start()?;
        let url = self.url();
        let client = eventually(SOON, "NATS answers", async || {
            self.process.check_running()?;
            let client = async_nats::connect(&url).await?;
            jetstream::new(client.clone()).query_account().await?;
            Ok(client)
        })
        .await?;
        self.client = Some(client);
        Ok(())
    }

    /// Kills the server; its data stays for the next start.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process, for its log.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
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

    /// How many messages of a stream are given out and not acked.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn unacked(&self, name: &str) -> Result<usize> {
        let stream = self.stream(name).await?;
        let consumers: Vec<_> = stream.consumers().try_collect().await?;
        Ok(consumers.iter().map(|info| info.num_ack_pending).sum())
    }

    /// How many messages the sources of a stream still have for it; one at least while a source
    /// is not set up, which the server reports as none.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn source_lag(&self, name: &str) -> Result<u64> {
        let stream = self.stream(name).await?;
        let sources = &stream.cached_info().sources;
        let lag = |active: bool, lag: u64| if active { lag } else { lag.max(1) };
        Ok(sources
            .iter()
            .map(|source| lag(source.active.is_some(), source.lag))
            .sum())
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
        let mut config = self.stream(name).await?.cached_info().config.clone();
        config.duplicate_window = window;
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

fn write_config(dir: &Path, port: u16, bytes: Option<u64>) -> Result<PathBuf> {
    let path = dir.join("nats-server.conf");
    let store = dir.join("jetstream");
    let limit = bytes.map_or_else(String::new, |bytes| format!(", max_file_store: {bytes}"));
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\n\
         max_payload: 2MB\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always{limit} }}\n",
        store.display()
    );
    std::fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
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
