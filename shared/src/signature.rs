//! Signatures of outgoing requests: Kong's header and the Standard Webhooks headers. Pure functions.
//!
//! Both use the hook's secret. Kong's key is the secret itself. The Standard Webhooks key is the
//! base64-decoded part after `whsec_`, or the secret itself if it has no such prefix. After `whsk_` comes a private key
//! (ed25519), for Standard Webhooks only: receivers verify with the public one.
//!
//! While a secret is replaced, the Standard Webhooks header has a signature by each.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD as BASE64};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use hmac::{Hmac, Mac as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;
use std::sync::Arc;

pub const KONG_SIGNATURE: &str = "x-kong-signature";
/// The delivery's id, the same for every attempt.
pub const WEBHOOK_ID: &str = "webhook-id";
/// Time of the attempt in Unix seconds.
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
/// Signs id, timestamp and body.
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

const STANDARD_PREFIX: &str = "whsec_";
const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";
/// Of a private key.
const SEED_BYTES: usize = 32;
/// `v1,` and 32 bytes in base64, and as much of a second one.
const STANDARD_SIGNATURES_LENGTH: usize = 2 * (3 + 44) + 1;

/// As people paste it: with padding or without, in either alphabet.
const PASTED: [GeneralPurpose; 2] = {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [
        GeneralPurpose::new(&alphabet::STANDARD, config),
        GeneralPurpose::new(&alphabet::URL_SAFE, config),
    ]
};

/// Checks the secret of a new hook.
pub fn check_secret(secret: &str) -> Result<(), String> {
    if secret.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if is_asymmetric(secret) {
        return match key_pair(secret) {
            Some(_) => Ok(()),
            None => Err(format!(
                "what follows {PRIVATE_PREFIX} is not the 32 bytes of an ed25519 key in base64"
            )),
        };
    }
    match standard_key(secret) {
        Some(key) if key.is_empty() => {
            Err(format!("a key in base64 must follow {STANDARD_PREFIX}"))
        }
        Some(_) => Ok(()),
        None => Err(format!("what follows {STANDARD_PREFIX} is not base64")),
    }
}

/// The key of the Standard Webhooks; `None` if the secret begins like one and is none.
fn standard_key(secret: &str) -> Option<Vec<u8>> {
    let Some(encoded) = secret.trim().strip_prefix(STANDARD_PREFIX) else {
        return Some(secret.as_bytes().to_owned());
    };
    let decoded = PASTED.iter().map(|engine| engine.decode(encoded));
    decoded.flatten().next()
}

fn is_asymmetric(secret: &str) -> bool {
    secret.trim().starts_with(PRIVATE_PREFIX)
}

/// The seed, or seed and public key, as both are in use.
fn key_pair(secret: &str) -> Option<Ed25519KeyPair> {
    let encoded = secret.trim().strip_prefix(PRIVATE_PREFIX)?;
    let mut decoded = PASTED.iter().flat_map(|engine| engine.decode(encoded));
    let bytes = decoded.next()?;
    match bytes.len() {
        SEED_BYTES => Ed25519KeyPair::from_seed_unchecked(&bytes).ok(),
        _ => {
            let (seed, public) = bytes.split_at_checked(SEED_BYTES)?;
            Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()
        }
    }
}

/// What verifies the signatures of a private key, as `whpk_…`.
#[must_use]
pub fn public_key(secret: &str) -> Option<String> {
    let pair = key_pair(secret)?;
    let public = BASE64.encode(pair.public_key());
    Some(format!("{PUBLIC_PREFIX}{public}"))
}

/// The hash in Kong's header: SHA-256 since Kong 3.14, SHA-1 before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    #[default]
    Sha256,
    Sha1,
}

/// A hook's keys, prepared once per change of the hook.
#[derive(Clone)]
pub struct Signer {
    /// None with a private key, which no receiver has.
    kong: Option<KongKey>,
    standard: StandardKey,
    /// The key before it, and the time in Unix seconds at which it ends.
    previous: Option<(StandardKey, i64)>,
}

#[derive(Clone)]
enum KongKey {
    Sha256(Hmac<Sha256>),
    Sha1(Hmac<Sha1>),
}

#[derive(Clone)]
enum StandardKey {
    /// `v1`
    Shared(Hmac<Sha256>),
    /// `v1a`
    Private(Arc<Ed25519KeyPair>),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    #[must_use]
    pub fn new(secret: &str, algorithm: Algorithm) -> Self {
        let kong = match algorithm {
            _ if is_asymmetric(secret) => None,
            Algorithm::Sha256 => Some(KongKey::Sha256(key(secret.as_bytes()))),
            Algorithm::Sha1 => Some(KongKey::Sha1(key(secret.as_bytes()))),
        };
        Self {
            kong,
            standard: StandardKey::new(secret),
            previous: None,
        }
    }

    /// Signs with the secret before this one too, until a time in Unix seconds.
    #[must_use]
    pub fn with_previous(mut self, secret: &str, until: i64) -> Self {
        self.previous = Some((StandardKey::new(secret), until));
        self
    }

    /// The value of `X-Kong-Signature`: the algorithm, `=`, and the body's HMAC in lowercase hex.
    #[must_use]
    pub fn kong(&self, body: &[u8]) -> Option<String> {
        Some(match self.kong.as_ref()? {
            KongKey::Sha256(key) => {
                let mac = key.clone().chain_update(body).finalize();
                hex_after("sha256=", &mac.into_bytes())
            }
            KongKey::Sha1(key) => {
                let mac = key.clone().chain_update(body).finalize();
                hex_after("sha1=", &mac.into_bytes())
            }
        })
    }

    /// The value of `webhook-signature`, which signs `<id>.<timestamp>.<body>`: one signature, or one by each secret with a
    /// space between.
    #[must_use]
    pub fn standard(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        let mut signatures = String::with_capacity(STANDARD_SIGNATURES_LENGTH);
        self.standard.sign(&head, body, &mut signatures);
        if let Some((previous, until)) = &self.previous
            && timestamp < *until
        {
            signatures.push(' ');
            previous.sign(&head, body, &mut signatures);
        }
        signatures
    }
}

impl StandardKey {
    fn new(secret: &str) -> Self {
        if let Some(pair) = key_pair(secret) {
            return Self::Private(Arc::new(pair));
        }
        // Hooks that were stored before secrets were checked keep their key.
        let bytes = standard_key(secret).unwrap_or_else(|| secret.as_bytes().to_owned());
        Self::Shared(key(&bytes))
    }

    fn sign(&self, head: &str, body: &[u8], signatures: &mut String) {
        match self {
            Self::Shared(key) => {
                let mac = key.clone().chain_update(head).chain_update(body).finalize();
                signatures.push_str("v1,");
                BASE64.encode_string(mac.into_bytes(), signatures);
            }
            Self::Private(pair) => {
                // The algorithm reads the message twice.
                let message = [head.as_bytes(), body].concat();
                signatures.push_str("v1a,");
                BASE64.encode_string(pair.sign(&message), signatures);
            }
        }
    }
}

fn key<M: hmac::KeyInit>(bytes: &[u8]) -> M {
    M::new_from_slice(bytes).expect("an HMAC key may have any length")
}

#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    hex_after("", bytes)
}

fn hex_after(prefix: &str, bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(prefix.len() + 2 * bytes.len());
    hex.push_str(prefix);
    let digits = bytes.iter().flat_map(|byte| hex_digits(*byte));
    hex.extend(digits.map(char::from));
    hex
}

pub(crate) fn hex_digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231 test case 2 and RFC 2202 test case 2.
    #[test]
    fn kongs_signature_is_the_bodys_hmac_in_hex() {
        let body = b"what do ya want for nothing?";
        assert_eq!(
            Signer::new("Jefe", Algorithm::Sha256).kong(body).as_deref(),
            Some("sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
        assert_eq!(
            Signer::new("Jefe", Algorithm::Sha1).kong(body).as_deref(),
            Some("sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
        );
    }

    /// The example of the Standard Webhooks specification.
    #[test]
    fn the_standard_signature_decodes_a_prefixed_secret() {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Algorithm::Sha256);
        assert_eq!(
            signer.standard(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_standard_secret_is_decoded_however_it_was_pasted_or_refused() {
        let sign = |secret: &str| Signer::new(secret, Algorithm::Sha256).standard("id", 1, b"{}");
        let want = sign("whsec_++//AAECAwQFBgcICQoLDA0ODw==");
        for same in [
            "whsec_++//AAECAwQFBgcICQoLDA0ODw",
            "whsec_--__AAECAwQFBgcICQoLDA0ODw==",
            "whsec_--__AAECAwQFBgcICQoLDA0ODw",
            "whsec_++//AAECAwQFBgcICQoLDA0ODw== ",
            " whsec_++//AAECAwQFBgcICQoLDA0ODw==\r\n",
        ] {
            assert_eq!(sign(same), want, "{same:?}");
            assert_eq!(check_secret(same), Ok(()), "{same:?}");
        }
        for wrong in [
            "",
            "whsec_",
            "whsec_ ",
            "whsec_=",
            "whsec_a",
            "whsec_ä",
            "whsec_+-",
            "whsec_a b",
        ] {
            assert!(check_secret(wrong).is_err(), "{wrong:?}");
        }
        for other in ["s3cret", " ", "whsec", "WHSEC_%"] {
            assert_eq!(check_secret(other), Ok(()), "{other:?}");
        }
    }

    #[test]
    fn both_secrets_sign_until_the_end_of_the_older_one() {
        let new = Signer::new("new", Algorithm::Sha256);
        let alone =
            |secret: &str, at| Signer::new(secret, Algorithm::Sha256).standard("id", at, b"{}");
        let both = new.clone().with_previous("old", 100);
        let want = format!("{} {}", alone("new", 99), alone("old", 99));
        assert_eq!(both.standard("id", 99, b"{}"), want);
        assert_eq!(both.standard("id", 100, b"{}"), alone("new", 100));
        assert_eq!(both.kong(b"{}"), new.kong(b"{}"));
    }

    #[test]
    fn a_private_key_signs_what_its_public_key_verifies() {
        let secret = format!("whsk_{}", BASE64.encode([7; SEED_BYTES]));
        assert_eq!(check_secret(&secret), Ok(()));
        let public = public_key(&secret).expect("a public key");
        let public = public.strip_prefix("whpk_").expect("its prefix");
        let public = BASE64.decode(public).expect("base64");
        let signer = Signer::new(&secret, Algorithm::Sha256);
        assert_eq!(signer.kong(b"{}"), None);
        let signature = signer.standard("id", 5, b"{}");
        let signature = signature.strip_prefix("v1a,").expect("its version");
        let signature = BASE64.decode(signature).expect("base64");
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
        assert!(key.verify(b"id.5.{}", &signature).is_ok());
        assert!(key.verify(b"id.6.{}", &signature).is_err());
        for wrong in ["whsk_", "whsk_AAAA", "whsk_%"] {
            assert!(check_secret(wrong).is_err(), "{wrong}");
        }
        assert_eq!(public_key("whsec_AAAA"), None);
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        let signer = Signer::new("s3cret", Algorithm::Sha256);
        assert_eq!(format!("{signer:?}"), "Signer");
    }
}
