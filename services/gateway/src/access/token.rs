//! Tokens and their digests.
//!
//! A token alone says who its user is, so users are found by its digest: it has the same salt for all of a cluster, and
//! no two users have the same. Generated tokens have 256 random bits, which nobody can try out: their digest is
//! SHA-256. Those that people choose could be tried out by who has seen the bucket: theirs is Argon2id.

use std::sync::LazyLock;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::schema::TOKEN_PREFIX;

/// Of generated tokens, as they are stored.
pub(crate) const DIGEST_PREFIX: &str = "sha256:";
const RANDOM_BYTES: usize = 32;
/// In KiB, by OWASP's advice, like the passes.
const MEMORY: u32 = 19_456;
const PASSES: u32 = 2;
/// Of Argon2id at a time, each some 20 ms and [`MEMORY`].
const AT_ONCE: usize = 1;
/// That wait for their turn.
const WAITING: usize = 32;

/// Too many tokens are being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// A new token.
pub(crate) fn generate() -> String {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).expect("the system has random bytes");
    format!("{TOKEN_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// As it is stored. The salt is the cluster's.
pub(crate) async fn digest(token: &str, salt: &str) -> Result<String, Busy> {
    if is_generated(token) {
        return Ok(digest_of_generated(token, salt));
    }
    static PLACES: Semaphore = Semaphore::const_new(WAITING);
    static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(AT_ONCE));
    let _place = PLACES.try_acquire().map_err(|_| Busy)?;
    let _turn = TURNS.acquire().await.map_err(|_| Busy)?;
    let (token, salt) = (token.to_owned(), salt.to_owned());
    let digest = tokio::task::spawn_blocking(move || slow(&token, &salt));
    digest.await.map_err(|_| Busy)
}

pub(crate) fn digest_of_generated(token: &str, salt: &str) -> String {
    let digest = Sha256::new()
        .chain_update(salt)
        .chain_update("\n")
        .chain_update(token)
        .finalize();
    format!("{DIGEST_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(digest))
}

pub(crate) fn is_generated(token: &str) -> bool {
    let random = token.strip_prefix(TOKEN_PREFIX);
    let random = random.map(|random| BASE64_URL_SAFE_NO_PAD.decode(random));
    random.is_some_and(|random| random.is_ok_and(|random| random.len() == RANDOM_BYTES))
}

fn slow(token: &str, salt: &str) -> String {
    let params = Params::new(MEMORY, PASSES, 1, None).expect("the parameters are sound");
    let mut digest = [0; 32];
    // Another salt would be too short.
    let salt = Sha256::digest(salt);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(token.as_bytes(), &salt, &mut digest)
        .expect("salt and digest have sound lengths");
    format!("argon2id:{}", BASE64_URL_SAFE_NO_PAD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_chosen_token_has_a_slow_digest_and_a_generated_one_a_fast_one() {
        let token = generate();
        assert_ne!(token, generate());
        let fast = digest(&token, "salt").await.expect("a digest");
        assert!(fast.starts_with("sha256:") && fast.len() == 50, "{fast}");
        assert_ne!(fast, digest(&token, "other").await.expect("a digest"));
        for chosen in ["swordfish", "hookline_swordfish", &token[1..]] {
            let slow = digest(chosen, "salt").await.expect("a digest");
            assert!(slow.starts_with("argon2id:"), "{chosen}: {slow}");
            assert_ne!(slow, digest(chosen, "other").await.expect("a digest"));
        }
    }
}
