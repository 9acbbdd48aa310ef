//! The process's TLS provider: rustls with ring.

/// Further calls do nothing.
pub fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
