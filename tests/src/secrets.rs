//! What `deploy/make-secrets` makes for a cluster in production.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::binaries;
use crate::cluster::Builder;

#[derive(Debug, Clone)]
pub struct Secrets {
    folder: PathBuf,
    variables: Vec<(String, String)>,
}

impl Secrets {
    /// In a folder of their own within `dir`.
    pub fn make(dir: &Path) -> Result<Self> {
        let folder = dir.join("secrets");
        let output = Command::new(binaries::workspace().join("deploy/make-secrets"))
            .arg(&folder)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "make-secrets: {said}");
        let text = std::fs::read_to_string(folder.join("secrets.env"))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let variable = |line: &str| -> Result<(String, String)> {
            let (name, value) = line.split_once('=').context("NAME=VALUE")?;
            Ok((name.to_owned(), value.to_owned()))
        };
        let variables = lines.map(variable).collect::<Result<_>>()?;
        Ok(Self { folder, variables })
    }

    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.file("authority.crt")
    }

    /// A variable of `secrets.env`.
    #[must_use]
    pub fn variable(&self, name: &str) -> String {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map_or_else(String::new, |(_, value)| value.clone())
    }

    /// For who tries without.
    pub fn forget_passwords(&mut self) {
        self.variables.clear();
    }

    #[must_use]
    pub fn nats_password(&self, user: &str) -> String {
        self.variable(&format!("HOOKLINE_NATS_{}_PASSWORD", user.to_uppercase()))
    }

    #[must_use]
    pub fn redis_password(&self, user: &str) -> String {
        self.variable(&format!("HOOKLINE_REDIS_{}_PASSWORD", user.to_uppercase()))
    }

    /// The variables of nats-server.
    pub(crate) fn of_nats(&self) -> impl Iterator<Item = (String, String)> {
        let passwords = self
            .variables
            .iter()
            .filter(|(name, _)| name.contains("_NATS_"));
        let file =
            |name: &str, file: &str| (name.to_owned(), self.file(file).display().to_string());
        let files = [
            file("NATS_TLS_CERT", "nats.crt"),
            file("NATS_TLS_KEY", "nats.key"),
            file("NATS_TLS_CA", "authority.crt"),
        ];
        passwords.cloned().chain(files)
    }

    /// Gives both services what they need.
    pub(crate) fn for_services(&self, builder: Builder) -> Builder {
        let path = |name: &str| self.file(name).display().to_string();
        let (authority, keyring) = (path("authority.crt"), path("keyring"));
        builder
            .gateway_env("HOOKLINE_NATS_TLS_CA", &authority)
            .gateway_env("HOOKLINE_KEYRING_FILE", &keyring)
            .gateway_env("HOOKLINE_RBAC", "on")
            .gateway_env("HOOKLINE_PASSWORD", &self.variable("HOOKLINE_PASSWORD"))
            .dispatcher_env("HOOKLINE_NATS_TLS_CA", &authority)
            .dispatcher_env("HOOKLINE_KEYRING_FILE", &keyring)
            .dispatcher_env("HOOKLINE_REDIS_TLS_CA", &authority)
    }

    /// Of clients that trust the authority.
    pub(crate) fn connector(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}
