//! Real Redis servers without persistence.

mod cluster;
mod sentinel;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use cluster::RedisCluster;
pub use sentinel::Sentinel;

use crate::process::Process;
use crate::secrets::Secrets;
use crate::wait::eventually;
use crate::{SOON, binaries, ports};

#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    port: u16,
    /// Those of a server with the configuration for production.
    secrets: Option<Secrets>,
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
        Ok(Self {
            process,
            port,
            secrets: None,
        })
    }

    /// With the configuration for production.
    pub fn production(dir: &Path, secrets: &Secrets) -> Result<Self> {
        let port = ports::free()?;
        let config = binaries::workspace().join("deploy/redis/production.conf");
        let file = |name: &str| secrets.file(name).display().to_string();
        let program = binaries::server("redis-tls-server")?;
        let process = Process::new("redis-server", program, dir).args([
            config.display().to_string(),
            "--tls-port".to_owned(),
            port.to_string(),
            "--bind".to_owned(),
            "127.0.0.1".to_owned(),
            "--dir".to_owned(),
            dir.display().to_string(),
            "--aclfile".to_owned(),
            file("users.acl"),
            "--tls-cert-file".to_owned(),
            file("redis.crt"),
            "--tls-key-file".to_owned(),
            file("redis.key"),
            "--tls-ca-cert-file".to_owned(),
            file("authority.crt"),
        ]);
        Ok(Self {
            process,
            port,
            secrets: Some(secrets.clone()),
        })
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
        match &self.secrets {
            None => {
                let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
                converse(&mut stream, command).await
            }
            Some(secrets) => {
                let password = secrets.redis_password("operator");
                self.ask_as("operator", &password, command).await
            }
        }
    }

    /// As [`Self::ask`], of a server with the configuration for production, as one of its users.
    pub async fn ask_as(&self, user: &str, password: &str, command: &str) -> Result<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let secrets = self.secrets.as_ref();
        let connector = secrets.context("it has no users")?.connector()?;
        let mut stream = connector.connect("localhost".try_into()?, stream).await?;
        let logged_in = converse(&mut stream, &format!("AUTH {user} \"{password}\"")).await?;
        match logged_in.starts_with("+OK") {
            true => converse(&mut stream, command).await,
            false => Ok(logged_in),
        }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server. All data is lost, but for a server as in production.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    #[must_use]
    pub fn url(&self) -> String {
        match &self.secrets {
            None => format!("redis://127.0.0.1:{}", self.port),
            Some(secrets) => format!(
                "rediss://dispatcher:{}@127.0.0.1:{}",
                secrets.redis_password("dispatcher"),
                self.port
            ),
        }
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

async fn converse(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    command: &str,
) -> Result<String> {
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .await?;
    stream.flush().await?;
    let mut answer = vec![0; 4_096];
    let read = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
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
