//! A real Redis-compatible server that keeps nothing on disk.

use std::path::Path;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::wait::eventually;
use crate::{SOON, binaries, ports};

/// The server.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    port: u16,
}

impl RedisServer {
    /// Describes a server; [`Self::start`] runs it.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn new(dir: &Path) -> Result<Self> {
        let port = ports::free()?;
        let process = Process::new("redis-server", binaries::server("redis-server")?, dir).args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &dir.display().to_string(),
        ]);
        Ok(Self { process, port })
    }

    /// Starts the server, or starts an empty one on the same port.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn start(&mut self) -> Result<()> {
        self.process.start()?;
        eventually(SOON, "Redis answers", async || {
            self.process.check_running()?;
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            ensure!(&answer == b"+PONG", "it answers {answer:?}");
            Ok(())
        })
        .await
    }

    /// Kills the server, and with it all it knew.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process, for its log.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

#[cfg(test)]
mod tests {
    use super::RedisServer;

    #[tokio::test]
    async fn a_killed_server_can_be_started_again() -> crate::Result {
        let dir = tempfile::tempdir()?;
        let mut redis = RedisServer::new(dir.path())?;
        redis.start().await?;
        redis.kill();
        redis.start().await
    }
}
