//! TLS with receivers: whom a hook trusts, and what it shows of itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// A hook's settings. Hooks with equal ones share connections.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// Whether the receiver's certificate is verified.
    pub(crate) verify: bool,
    /// None: those that this host trusts.
    pub(crate) authorities: BTreeSet<Named<CertificateDer<'static>>>,
    pub(crate) identity: Option<Named<CertifiedKey>>,
}

/// What was parsed of an entity at one of its states.
#[derive(Debug)]
pub(crate) struct Named<T> {
    pub(crate) id: Arc<str>,
    /// The sequence of the message that brought it.
    pub(crate) state: u64,
    pub(crate) parsed: Arc<T>,
}

impl<T> Named<T> {
    fn key(&self) -> (&str, u64) {
        (&self.id, self.state)
    }
}

impl<T> Clone for Named<T> {
    fn clone(&self) -> Self {
        Self {
            id: Arc::clone(&self.id),
            state: self.state,
            parsed: Arc::clone(&self.parsed),
        }
    }
}

impl<T> PartialEq for Named<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Named<T> {}

impl<T> std::hash::Hash for Named<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl<T> PartialOrd for Named<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Named<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Tls {
    /// The host's authorities, and no certificate.
    pub(super) fn of_host() -> Self {
        Self {
            verify: true,
            authorities: BTreeSet::new(),
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
                let pair = SingleCertAndKey::from(Arc::clone(&identity.parsed));
                builder.with_client_cert_resolver(Arc::new(pair))
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
            let added = roots.add((*authority.parsed).clone());
            added.map_err(|error| unusable(&error))?;
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
