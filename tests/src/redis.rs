//! Real Redis servers without persistence.

mod cluster;
mod sentinel;

use std::path::Path;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use cluster::RedisCluster;
pub use sentinel::Sentinel;

use crate::process::Process;
use crate::wait::eventually;
use crate::{SOON, binaries, ports};

#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    port: u16,
}

impl RedisServer {
    /// [`Self::start`] runs it.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::with_args(dir, "redis-server", &[])
    }

    /// With a name and further arguments.
    pub fn with_args(dir: &Path, name: &str, args: &[&str]) -> Result<Self> {
        let port = ports::free()?;
        let (number, dir_name) = (port.to_string(), dir.display().to_string());
        let common = [
            "--port",
            &number,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &dir_name,
        ];
        let program = binaries::server("redis-server")?;
        let process = Process::new(name, program, dir).args(common.iter().chain(args).copied());
        Ok(Self { process, port })
    }

    /// Starts the server, or restarts it, empty, on the same port.
    pub async fn start(&mut self) -> Result<()> {
        self.process.start()?;
        eventually(SOON, "Redis answers", async || {
            self.process.check_running()?;
            let answer = self.ask("PING").await?;
            let up = answer.starts_with("+PONG") || answer.starts_with("-NOAUTH");
            ensure!(up, "it answers {answer:?}");
            Ok(())
        })
        .await
    }

    /// Sends a command. Returns the first 4 KiB of the raw reply.
    pub async fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .await?;
        let mut answer = vec![0; 4_096];
        let read = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server. All data is lost.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    #[must_use]
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
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
