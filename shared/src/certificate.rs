//! Certificates, private keys and authorities as texts in PEM.

use std::sync::Arc;

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
    if ParsedCertificate::try_from(first).is_err() {
        public_key(first)?;
    }
    Ok(chain)
}

/// The public key of a certificate of any version, without its outermost frame. Those of version 1 are read as authorities
/// only.
fn public_key(certificate: &CertificateDer<'static>) -> Result<Vec<u8>, Error> {
    let mut store = RootCertStore::empty();
    let added = store.add(certificate.clone());
    added.map_err(|_| Error::Certificate)?;
    let key = store
        .roots
        .first()
        .map(|root| &root.subject_public_key_info);
    Ok(key.ok_or(Error::Certificate)?.to_vec())
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
    let (chain, key) = (chain(certificate)?, key(private_key)?);
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| Error::Key)?;
    let of_certificate = public_key(chain.first().ok_or(Error::Certificate)?)?;
    let of_key = key.public_key().ok_or(Error::Key)?;
    match of_key.ends_with(&of_certificate) {
        true => Ok(Arc::new(CertifiedKey::new(chain, key))),
        false => Err(Error::Mismatch),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of version 1, which has no extensions: `openssl x509 -req -signkey`.
    const OLD: &str = "-----BEGIN CERTIFICATE-----
MIIBHzCBxwIUX1PBG99MoYz9ISadE9Gd2gtcxNgwCgYIKoZIzj0EAwIwEjEQMA4G
A1UEAwwHdjEudGVzdDAgFw0yNjExMjkxMjU1MTVaGA8yMTI2MTEwNTEyNTUxNVow
EjEQMA4GA1UEAwwHdjEudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMw/
lzMOziuMoFe8FIqBl3iWNV4n7FpHjHgyhiz8q0igX616RD3KGAbf9VmNPyXY0yod
G2Zd6KJdLnf6g7p6wdMwCgYIKoZIzj0EAwIDRwAwRAIgKaeb0ermbpaUgiYwTWcx
wOjwqJGNifvSiYmjNeni4T8CIEQ3TLtIGwEQyUXXSmr+JG/u0cK/jpVlNaJGLIuv
AuwS
-----END CERTIFICATE-----";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgyES1ej3f7v0ukanV
IImczMG7PA0RVPTTFJD/LI8xjnyhRANCAATMP5czDs4rjKBXvBSKgZd4ljVeJ+xa
R4x4MoYs/KtIoF+tekQ9yhgG3/VZjT8l2NMqHRtmXeiiXS53+oO6esHT
-----END PRIVATE KEY-----";

    #[test]
    fn certificates_of_version_1_are_read_too() {
        assert_eq!(chain(OLD).map(|chain| chain.len()), Ok(1));
        assert!(authority(OLD).is_ok());
        assert!(with_key(OLD, KEY).is_ok());
        let wrong = OLD.replace("MII", "MIJ");
        assert_eq!(chain(&wrong), Err(Error::Certificate));
    }

    #[test]
    fn a_key_of_another_certificate_does_not_match() {
        let other = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a pair");
        let (cert, key) = (other.cert.pem(), other.signing_key.serialize_pem());
        assert!(with_key(&cert, &key).is_ok());
        assert_eq!(with_key(&cert, KEY).err(), Some(Error::Mismatch));
        assert_eq!(with_key(OLD, &key).err(), Some(Error::Mismatch));
    }
}
