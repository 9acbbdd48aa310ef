//! TLS with receivers: whom a hook trusts, and what it shows of itself.

use std::sync::Arc;

use hookline_shared::certificate;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// A hook's settings. Hooks with equal ones share connections.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// Whether the receiver's certificate is verified.
    pub(crate) verify: bool,
    /// In PEM. None: those that this host trusts.
    pub(crate) authorities: Vec<Arc<str>>,
    pub(crate) identity: Option<Identity>,
}

/// A certificate and its private key, in PEM.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) certificate: Arc<str>,
    pub(crate) key: Arc<str>,
}

impl Tls {
    /// The host's authorities, and no certificate.
    pub(super) fn of_host() -> Self {
        Self {
            verify: true,
            authorities: Vec::new(),
            identity: None,
        }
    }
}

/// Makes the settings of connections.
pub(super) struct Factory {
    provider: Arc<CryptoProvider>,
    /// Reads the host's authorities, which takes a while, once.
    of_host: Arc<dyn ServerCertVerifier>,
}

impl Factory {
    pub(super) fn new() -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let of_host = Arc::new(Verifier::new(Arc::clone(&provider))?);
        Ok(Self { provider, of_host })
    }

    /// The error is a sentence for the hook's owner.
    pub(super) fn config(&self, tls: &Tls) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(tls)?);
        Ok(match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let pair = certificate::with_key(&identity.certificate, &identity.key);
                let pair = pair.map_err(|error| format!("config.client_certificate: {error}"))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
        })
    }

    fn verifier(&self, tls: &Tls) -> Result<Arc<dyn ServerCertVerifier>, String> {
        if !tls.verify {
            return Ok(Arc::new(Anybody(Arc::clone(&self.provider))));
        }
        if tls.authorities.is_empty() {
            return Ok(Arc::clone(&self.of_host));
        }
        let mut roots = RootCertStore::empty();
        let unusable = |error: &dyn std::fmt::Display| format!("config.ca_certificates: {error}");
        for authority in &tls.authorities {
            let authority = certificate::authority(authority).map_err(|error| unusable(&error))?;
            roots.add(authority).map_err(|error| unusable(&error))?;
        }
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().map_err(|error| unusable(&error))?;
        Ok(verifier)
    }
}

/// Takes any certificate, as `ssl_verify: false` says.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.0.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
