//! A master, its replica, and a sentinel that promotes the replica.

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::RedisServer;
use crate::process::Process;
use crate::wait::eventually;
use crate::{SOON, binaries, ports};

/// The name under which the sentinel knows the master.
const MASTER: &str = "main";

#[derive(Debug)]
pub struct Sentinel {
    /// The master at first.
    pub master: RedisServer,
    /// The replica at first.
    pub replica: RedisServer,
    port: u16,
    _sentinel: Process,
    _dir: TempDir,
}

impl Sentinel {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hookline-").tempdir()?;
        let mut master = RedisServer::with_args(dir.path(), "master", &[])?;
        master.start().await?;
        let of = format!("127.0.0.1 {}", master.port());
        let args = ["--replicaof", &of, "--repl-diskless-sync-delay", "0"];
        let mut replica = RedisServer::with_args(dir.path(), "replica", &args)?;
        replica.start().await?;

        let port = ports::free()?;
        let config = dir.path().join("sentinel.conf");
        let settings = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("sentinel monitor {MASTER} {of} 1"),
            format!("sentinel down-after-milliseconds {MASTER} 1000"),
            format!("sentinel failover-timeout {MASTER} 5000"),
        ];
        std::fs::write(&config, settings.join("\n"))?;
        let program = binaries::server("redis-server")?;
        let path = config.display().to_string();
        let mut sentinel =
            Process::new("sentinel", program, dir.path()).args([path.as_str(), "--sentinel"]);
        sentinel.start()?;
        let started = Self {
            master,
            replica,
            port,
            _sentinel: sentinel,
            _dir: dir,
        };
        eventually(SOON, "the replica follows", async || {
            let info = started.master.ask("INFO replication").await?;
            ensure!(info.contains("state=online"), "{info}");
            Ok(())
        })
        .await?;
        Ok(started)
    }

    /// As a dispatcher is given it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{MASTER}", self.port)
    }
}
