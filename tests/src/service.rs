//! A gateway or a dispatcher: a process with a status API, and in a gateway an Admin API.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::admin::{self, Admin};
use crate::logs::Line;
use crate::process::Process;
use crate::tls::Authority;
use crate::wait::eventually;
use crate::{SOON, binaries, logs, metrics, ports};

/// Logged by a dispatcher that gives deliveries in flight back instead of finishing them.
const DEADLINE_PASSED: &str = "deadline passed";
/// Logged by a service that does what its user may not.
pub const FORBIDDEN: &str = "NATS forbids this user";

/// What a service did with deliveries in flight when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    Finished,
    /// They took longer than the service's shutdown timeout.
    GivenBack,
}

#[derive(Debug)]
pub struct Service {
    process: Process,
    status: String,
    admin: Option<Admin>,
    ingest: String,
    http: reqwest::Client,
}

impl Service {
    /// [`Self::start`] runs it.
    pub fn gateway(name: &str, dir: &Path, nats: &str) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", ports::free()?);
        let mut gateway = Self::new(name, "hookline-gateway", dir, nats)?;
        gateway.process.set_env("HOOKLINE_ADMIN_LISTEN", &listen);
        gateway.process.set_env("HOOKLINE_NODE", name);
        let ingest = format!("127.0.0.1:{}", ports::free()?);
        gateway.process.set_env("HOOKLINE_INGEST_LISTEN", &ingest);
        gateway.ingest = format!("http://{ingest}");
        gateway.admin = Some(Admin::new(&format!("http://{listen}"))?);
        Ok(gateway)
    }

    /// From now on its Admin API is served over TLS, and this client has its own certificate if it needs one.
    pub fn serve_tls(
        &mut self,
        authority: &Authority,
        server: &(PathBuf, PathBuf),
        client: Option<&(PathBuf, PathBuf)>,
    ) -> Result<()> {
        self.set("HOOKLINE_ADMIN_TLS_CERT", &server.0.display().to_string());
        self.set("HOOKLINE_ADMIN_TLS_KEY", &server.1.display().to_string());
        let admin = self.admin().clone();
        self.admin = Some(admin.over_tls(authority, client)?);
        Ok(())
    }

    /// A dispatcher that may call loopback addresses, with a lease short enough to wait for. [`Self::start`]
    /// runs it.
    pub fn dispatcher(name: &str, dir: &Path, nats: &str, redis: &str) -> Result<Self> {
        let mut dispatcher = Self::new(name, "hookline-dispatcher", dir, nats)?;
        for (variable, value) in [
            ("HOOKLINE_NODE", name),
            ("HOOKLINE_REDIS_URL", redis),
            ("HOOKLINE_EGRESS_ALLOW", "127.0.0.0/8"),
            ("HOOKLINE_LEASE", "6s"),
            ("HOOKLINE_ACK_WAIT", "8s"),
        ] {
            dispatcher.process.set_env(variable, value);
        }
        Ok(dispatcher)
    }

    fn new(name: &str, program: &str, dir: &Path, nats: &str) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", ports::free()?);
        let process = Process::new(name, binaries::service(program)?, dir)
            .env("HOOKLINE_STATUS_LISTEN", &listen)
            .env("HOOKLINE_NATS_URL", nats)
            .env("HOOKLINE_LOG_FORMAT", "json");
        Ok(Self {
            process,
            status: format!("http://{listen}"),
            admin: None,
            ingest: String::new(),
            http: admin::http_client()?,
        })
    }

    /// From now on its Admin API is asked with this token.
    pub fn log_in(&mut self, token: &str) {
        let admin = self.admin().with_token(token);
        self.admin = Some(admin);
    }

    /// Takes effect at the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.process.set_env(name, value);
    }

    /// Starts the process without waiting; see [`Self::ready`].
    pub fn start(&mut self) -> Result<()> {
        self.process.start()
    }

    /// Makes this dispatcher's settings the cluster's.
    pub async fn replace_settings(&self) -> Result<()> {
        let name = format!("{}-replaces-settings", self.process.name());
        let mut command = self.process.again(&name, &["replace-settings"]);
        command.start()?;
        let code = command.exit_code(SOON).await?;
        ensure!(code == 0, "it ends with code {code}: {}", command.log());
        Ok(())
    }

    pub async fn ready(&mut self) -> Result<()> {
        let what = format!("{} is ready", self.process.name());
        eventually(SOON, &what, async || {
            self.process.check_running()?;
            let status = self.status_of("/readyz").await?;
            ensure!(status == 200, "/readyz answers {status}");
            Ok(())
        })
        .await
    }

    /// The status code of a path.
    pub async fn status_of(&self, path: &str) -> Result<u16> {
        let url = format!("{}{path}", self.status);
        Ok(self.http.get(url).send().await?.status().as_u16())
    }

    pub async fn metrics(&self) -> Result<String> {
        let url = format!("{}/metrics", self.status);
        let response = self.http.get(url).send().await?.error_for_status()?;
        Ok(response.text().await?)
    }

    /// The sum of a metric over all series with these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(metrics::sum(&self.metrics().await?, name, labels))
    }

    /// Host and port of the status API.
    #[must_use]
    pub fn status_address(&self) -> &str {
        self.status.trim_start_matches("http://")
    }

    /// Of a gateway.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        self.admin.as_ref().expect("a gateway has an Admin API")
    }

    /// Where a gateway takes events over HTTP.
    #[must_use]
    pub fn ingest(&self) -> &str {
        &self.ingest
    }

    #[must_use]
    pub fn log_lines(&self) -> Vec<Line> {
        logs::parse(&self.process.log())
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    #[must_use]
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends SIGTERM. The service must exit with code 0.
    pub async fn stop(&mut self) -> Result<()> {
        self.drain().await.map(drop)
    }

    /// As [`Self::stop`]. Returns what the service did with deliveries in flight.
    pub async fn drain(&mut self) -> Result<InFlight> {
        let logged = self.process.log().len();
        self.process.terminate()?;
        let code = self.process.exit_code(SOON).await?;
        let name = self.process.name();
        ensure!(code == 0, "{name} ended with code {code} after SIGTERM");
        let said = self.process.log().split_off(logged);
        if said.contains(DEADLINE_PASSED) {
            return Ok(InFlight::GivenBack);
        }
        Ok(InFlight::Finished)
    }

    /// Fails if the service ever panicked, or lacked a permission.
    pub fn check_log(&self) -> Result<()> {
        let log = self.process.log();
        let is_bad = |line: &&str| {
            ["panicked at", FORBIDDEN]
                .iter()
                .any(|bad| line.contains(bad))
        };
        let bad = log.lines().find(is_bad);
        ensure!(bad.is_none(), "{}: {bad:?}", self.process.name());
        Ok(())
    }

    /// Fails if the process ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.check_running().context("it should still run")
    }
}
