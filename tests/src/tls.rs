//! TLS in front of servers that have none, with certificates of a test authority.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Valid,
    Expired,
}

/// Trusted by processes whose `SSL_CERT_FILE` is its [`file`](Self::file).
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    /// Writes its certificate to `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let file = dir.join("authority.pem");
        std::fs::write(&file, params.self_signed(&key)?.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            file,
        })
    }

    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Files of a certificate for `localhost`, and of its key, with `name` in theirs.
    pub fn issue(&self, name: &str, validity: Validity) -> Result<(PathBuf, PathBuf)> {
        let (certificate, key) = self.certificate(validity)?;
        let place = |end: &str| self.file.with_file_name(format!("{name}.{end}"));
        let (certificate_file, key_file) = (place("crt"), place("key"));
        std::fs::write(&certificate_file, certificate.pem())?;
        std::fs::write(&key_file, key.serialize_pem())?;
        Ok((certificate_file, key_file))
    }

    /// As [`Self::front`], but lets only clients in that have a certificate of this authority.
    pub async fn front_for_clients(&self, port: u16) -> Result<TlsFront> {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(&self.file)?;
        roots.add(CertificateDer::from_pem_slice(&pem)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let (certificate, key) = self.certificate(Validity::Valid)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients.build()?)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
        TlsFront::start(config, port).await
    }

    fn certificate(&self, validity: Validity) -> Result<(rcgen::Certificate, KeyPair)> {
        let mut params = CertificateParams::new(["localhost".to_owned()])?;
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate, key))
    }

    /// Puts TLS for `localhost` in front of a local port.
    pub async fn front(&self, port: u16, validity: Validity) -> Result<TlsFront> {
        TlsFront::start(self.config(validity)?, port).await
    }

    fn config(&self, validity: Validity) -> Result<ServerConfig> {
        let (certificate, key) = self.certificate(validity)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .context("a certificate and its key")
    }
}

#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl TlsFront {
    async fn start(config: ServerConfig, port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                // A client that rejects the certificate closes the connection.
                tokio::spawn(async move { join(&acceptor, client, port).await.ok() });
            }
        });
        Ok(Self {
            address,
            connections,
            task,
        })
    }

    /// The certificate is for `localhost`, not for 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections so far, with or without a handshake.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn join(acceptor: &TlsAcceptor, client: TcpStream, port: u16) -> Result<()> {
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
