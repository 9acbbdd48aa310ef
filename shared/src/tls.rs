//! TLS: the process's provider, the files that settings name, and a server's certificates, which are read again when
//! their files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Between looks at the files.
const LOOK: Duration = Duration::from_secs(5);

/// Further calls do nothing.
pub fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The files of one side of TLS. Settings are named `<name>_CA`, `<name>_CERT` and `<name>_KEY`.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub name: &'static str,
    /// Whom the other side's certificate may be of.
    pub ca: Option<PathBuf>,
    /// This side's own.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// What the files hold, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pem {
    pub ca: Option<Vec<u8>>,
    /// Certificates and key.
    pub own: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {} ({setting}): {source}", file.display())]
    Read {
        setting: String,
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("{} ({setting}) holds no {what} in PEM", file.display())]
    Pem {
        setting: String,
        file: PathBuf,
        what: &'static str,
    },
    #[error("{0}_CERT and {0}_KEY belong together: give both or none")]
    Alone(&'static str),
    #[error("{0}_CA alone is not enough: a server needs {0}_CERT and {0}_KEY")]
    NoOwn(&'static str),
    #[error("{name}_CERT and {name}_KEY do not go together: {source}")]
    Pair {
        name: &'static str,
        source: rustls::Error,
    },
    #[error("{name}_CA cannot be used: {reason}")]
    Authority { name: &'static str, reason: String },
}

impl Files {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.cert.is_none() && self.key.is_none()
    }

    /// Reads them, and sees that each holds what it should.
    pub fn read(&self) -> Result<Pem, Error> {
        let certificates = |suffix, file: &Option<PathBuf>| {
            file.as_deref()
                .map(|file| self.certificates(suffix, file))
                .transpose()
        };
        let (ca, cert) = (
            certificates("CA", &self.ca)?,
            certificates("CERT", &self.cert)?,
        );
        let key = self.key.as_deref().map(|file| self.key(file)).transpose()?;
        let own = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(Error::Alone(self.name)),
        };
        Ok(Pem { ca, own })
    }

    fn certificates(&self, suffix: &str, file: &Path) -> Result<Vec<u8>, Error> {
        let setting = format!("{}_{suffix}", self.name);
        let pem = read(&setting, file)?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect();
        if found.is_empty() || found.iter().any(Result::is_err) {
            return Err(Error::Pem {
                setting,
                file: file.to_owned(),
                what: "certificate",
            });
        }
        Ok(pem)
    }

    fn key(&self, file: &Path) -> Result<Vec<u8>, Error> {
        let setting = format!("{}_KEY", self.name);
        let pem = read(&setting, file)?;
        if PrivateKeyDer::from_pem_slice(&pem).is_err() {
            return Err(Error::Pem {
                setting,
                file: file.to_owned(),
                what: "private key",
            });
        }
        Ok(pem)
    }
}

fn read(setting: &str, file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|source| Error::Read {
        setting: setting.to_owned(),
        file: file.to_owned(),
        source,
    })
}

/// What a listener needs for TLS. With an authority, clients must have a certificate of it.
#[derive(Debug)]
pub struct ServerTls {
    files: Files,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    pem: Pem,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// `None` without files.
    pub fn load(files: Files) -> Result<Option<Self>, Error> {
        if files.is_empty() {
            return Ok(None);
        }
        install_provider();
        let current = Current::read(&files)?;
        Ok(Some(Self {
            files,
            current: ArcSwap::from_pointee(current),
        }))
    }

    /// For the next connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }

    /// Takes changed files from now on; never returns. Files that cannot be used change nothing.
    pub async fn follow(&self) {
        let mut last_error = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let error = match self.files.read() {
                Ok(pem) if pem == self.current.load().pem => None,
                Ok(_) => match Current::read(&self.files) {
                    Ok(new) => {
                        self.current.store(Arc::new(new));
                        tracing::info!("took the changed certificate");
                        None
                    }
                    Err(error) => Some(error.to_string()),
                },
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = &error
                && last_error.as_ref() != Some(error)
            {
                tracing::error!(
                    error,
                    "cannot take the changed certificate, the last one stays"
                );
            }
            last_error = error;
        }
    }
}

impl Current {
    fn read(files: &Files) -> Result<Self, Error> {
        let pem = files.read()?;
        let Some((cert, key)) = &pem.own else {
            return Err(Error::NoOwn(files.name));
        };
        let chain = certificates(cert);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::Alone(files.name))?;
        let builder = ServerConfig::builder();
        let builder = match &pem.ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let refused = |reason: String| Error::Authority {
                    name: files.name,
                    reason,
                };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(ca) {
                    let added = roots.add(certificate);
                    added.map_err(|error| refused(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                let verifier = verifier.map_err(|error| refused(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|source| Error::Pair {
            name: files.name,
            source,
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            pem,
            config: Arc::new(config),
        })
    }
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).flatten().collect()
}
