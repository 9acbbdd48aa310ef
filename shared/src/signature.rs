//! Signatures of outgoing requests: Kong's header and the Standard Webhooks headers. Pure functions.
//!
//! Both use the hook's secret. Kong's key is the secret itself. The Standard Webhooks key is the
//! base64-decoded part after `whsec_`, or the secret itself if it has no such prefix.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD as BASE64};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;

pub const KONG_SIGNATURE: &str = "x-kong-signature";
/// The delivery's id, the same for every attempt.
pub const WEBHOOK_ID: &str = "webhook-id";
/// Time of the attempt in Unix seconds.
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
/// Signs id, timestamp and body.
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

const STANDARD_PREFIX: &str = "whsec_";
/// `v1,` and 32 bytes in base64.
const STANDARD_SIGNATURE_LENGTH: usize = 3 + 44;

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
    kong: KongKey,
    standard: Hmac<Sha256>,
}

#[derive(Clone)]
enum KongKey {
    Sha256(Hmac<Sha256>),
    Sha1(Hmac<Sha1>),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    #[must_use]
    pub fn new(secret: &str, algorithm: Algorithm) -> Self {
        // Hooks that were stored before secrets were checked keep their key.
        let standard = standard_key(secret).unwrap_or_else(|| secret.as_bytes().to_owned());
        Self {
            kong: match algorithm {
                Algorithm::Sha256 => KongKey::Sha256(key(secret.as_bytes())),
                Algorithm::Sha1 => KongKey::Sha1(key(secret.as_bytes())),
            },
            standard: key(&standard),
        }
    }

    /// The value of `X-Kong-Signature`: the algorithm, `=`, and the body's HMAC in lowercase hex.
    #[must_use]
    pub fn kong(&self, body: &[u8]) -> String {
        match &self.kong {
            KongKey::Sha256(key) => {
                let mac = key.clone().chain_update(body).finalize();
                hex_after("sha256=", &mac.into_bytes())
            }
            KongKey::Sha1(key) => {
                let mac = key.clone().chain_update(body).finalize();
                hex_after("sha1=", &mac.into_bytes())
            }
        }
    }

    /// The value of `webhook-signature`, which signs `<id>.<timestamp>.<body>`.
    #[must_use]
    pub fn standard(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mac = self
            .standard
            .clone()
            .chain_update(format!("{id}.{timestamp}."))
            .chain_update(body)
            .finalize();
        let mut signature = String::with_capacity(STANDARD_SIGNATURE_LENGTH);
        signature.push_str("v1,");
        BASE64.encode_string(mac.into_bytes(), &mut signature);
        signature
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
            Signer::new("Jefe", Algorithm::Sha256).kong(body),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            Signer::new("Jefe", Algorithm::Sha1).kong(body),
            "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
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
    fn a_secret_never_shows_in_debug_output() {
        let signer = Signer::new("s3cret", Algorithm::Sha256);
        assert_eq!(format!("{signer:?}"), "Signer");
    }
}
