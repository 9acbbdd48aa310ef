//! Certificates, private keys and authorities as texts in PEM.

use std::sync::Arc;

use rustls::InconsistentKeys::KeyMismatch;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

/// Of a text.
const MAX_BYTES: usize = 16 << 10;
/// Of a chain.
const MAX_CERTIFICATES: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("length must be at most {MAX_BYTES}")]
    TooLong,
    #[error("invalid certificate: expected PEM, with BEGIN CERTIFICATE")]
    Certificate,
    /// Anything else stored here, such as a private key, would be shown to every reader.
    #[error("invalid certificate: it has other parts, such as a private key")]
    OtherParts,
    #[error("please submit only one certificate at a time")]
    Several,
    #[error("length must be at most {MAX_CERTIFICATES} certificates")]
    TooMany,
    #[error("invalid certificate: it cannot be an authority")]
    Authority,
    #[error("invalid key: expected PEM, with BEGIN PRIVATE KEY and no passphrase")]
    Key,
    #[error("certificate does not match key")]
    Mismatch,
}

/// One certificate, or several: the first, and those between it and its authority.
pub fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    if pem.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    if pem.matches("-----BEGIN ").count() > pem.matches("-----BEGIN CERTIFICATE-----").count() {
        return Err(Error::OtherParts);
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|_| Error::Certificate)?;
    if chain.len() > MAX_CERTIFICATES {
        return Err(Error::TooMany);
    }
    let first = chain.first().ok_or(Error::Certificate)?;
    ParsedCertificate::try_from(first).map_err(|_| Error::Certificate)?;
    Ok(chain)
}

/// Of which others may be.
pub fn authority(pem: &str) -> Result<CertificateDer<'static>, Error> {
    let mut chain = chain(pem)?;
    if chain.len() > 1 {
        return Err(Error::Several);
    }
    let authority = chain.pop().ok_or(Error::Certificate)?;
    let added = RootCertStore::empty().add(authority.clone());
    added.map_err(|_| Error::Authority)?;
    Ok(authority)
}

pub fn key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    if pem.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::Key)?;
    rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| Error::Key)?;
    Ok(key)
}

/// What one side shows the other.
pub fn with_key(certificate: &str, private_key: &str) -> Result<Arc<CertifiedKey>, Error> {
    let provider = rustls::crypto::ring::default_provider();
    let pair = CertifiedKey::from_der(chain(certificate)?, key(private_key)?, &provider);
    let pair = pair.map_err(|error| match error {
        rustls::Error::InconsistentKeys(KeyMismatch) => Error::Mismatch,
        _ => Error::Key,
    })?;
    Ok(Arc::new(pair))
}

/// SHA-256 of a certificate, in hexadecimal.
#[must_use]
pub fn digest(certificate: &CertificateDer<'_>) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(certificate) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
