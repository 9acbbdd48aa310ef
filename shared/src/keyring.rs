//! The keys of secrets at rest: those of hooks are sealed in the bucket (see `sealed`). The first key seals, all of
//! them open. A keyring's file is read again when a key is missing, so that keys can be added while processes run.

mod sealed;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};

pub use sealed::{Closed, MissingKey, check, open, seal};

const KEY_BYTES: usize = 32;
/// Between reads of a file that had no key of that name.
const READ_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Secrets at rest")]
#[group(skip)]
pub struct Options {
    /// Keys that seal hooks' secrets in NATS, `NAME:KEY,NAME:KEY` as `hookline-gateway new-key` makes them: the first
    /// one seals, all of them open. [default: secrets are stored as they are]
    #[arg(
        long,
        env = "HOOKLINE_KEYRING",
        value_name = "KEYS",
        hide_env_values = true
    )]
    pub keyring: Option<String>,

    /// File with such keys, one a line.
    #[arg(long, env = "HOOKLINE_KEYRING_FILE", value_name = "FILE")]
    pub keyring_file: Option<PathBuf>,
}

/// Quotes no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("give one of HOOKLINE_KEYRING and HOOKLINE_KEYRING_FILE")]
    Two,
    #[error("cannot read {} (HOOKLINE_KEYRING_FILE): {source}", file.display())]
    Read {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "key {0} of the keyring is not NAME:KEY with 32 bytes in base64; `hookline-gateway new-key` makes one"
    )]
    Key(usize),
    #[error("the keyring has two keys with the name {0}")]
    Name(String),
    #[error("the keyring has no key")]
    Empty,
}

#[derive(Default)]
struct Keys(Vec<(String, LessSafeKey)>);

/// The process's keyring.
static KEYRING: LazyLock<ArcSwap<Keys>> = LazyLock::new(ArcSwap::default);
static FILE: Mutex<Option<(PathBuf, Instant)>> = Mutex::new(None);

impl Options {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keyring.is_none() && self.keyring_file.is_none()
    }

    /// Makes the keys those of this process.
    pub fn apply(&self) -> Result<(), Error> {
        let keys = match (&self.keyring, &self.keyring_file) {
            (Some(_), Some(_)) => return Err(Error::Two),
            (None, None) => return Ok(()),
            (Some(text), None) => Keys::parse(text.split(','))?,
            (None, Some(file)) => {
                *FILE.lock() = Some((file.clone(), Instant::now()));
                Keys::read(file)?
            }
        };
        KEYRING.store(Arc::new(keys));
        Ok(())
    }
}

/// A new key with a name, as a keyring has it.
#[must_use]
pub fn new_key() -> String {
    let (mut name, mut key) = ([0; 4], [0; KEY_BYTES]);
    getrandom::fill(&mut name).expect("the system has random bytes");
    getrandom::fill(&mut key).expect("the system has random bytes");
    let name = u32::from_be_bytes(name);
    format!("key-{name:08x}:{}", BASE64_STANDARD.encode(key))
}

/// The name of the key that seals.
#[must_use]
pub fn sealing_key() -> Option<String> {
    let keys = KEYRING.load();
    keys.0.first().map(|(name, _)| name.clone())
}

fn keys() -> Arc<Keys> {
    KEYRING.load_full()
}

/// The keys after another look at the file.
fn read_again() -> Arc<Keys> {
    if let Some((file, read)) = &mut *FILE.lock()
        && read.elapsed() >= READ_AGAIN
    {
        *read = Instant::now();
        match Keys::read(file) {
            Ok(keys) => KEYRING.store(Arc::new(keys)),
            Err(error) => tracing::error!(%error, "the keyring stays as it was"),
        }
    }
    keys()
}

/// Takes a changed file from now on; never returns.
pub async fn follow() {
    loop {
        tokio::time::sleep(5 * READ_AGAIN).await;
        let before = sealing_key();
        let now = read_again();
        let now = now.0.first().map(|(name, _)| name.clone());
        if now != before {
            tracing::info!(key = now, "another key seals secrets from now on");
        }
    }
}

impl Keys {
    fn read(file: &PathBuf) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).map_err(|source| Error::Read {
            file: file.clone(),
            source,
        })?;
        Self::parse(text.lines().filter(|line| !line.starts_with('#')))
    }

    fn parse<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Self, Error> {
        let mut keys = Self::default();
        let entries = entries.map(str::trim).filter(|entry| !entry.is_empty());
        for (at, entry) in entries.enumerate() {
            let wrong = || Error::Key(at + 1);
            let (name, key) = entry.split_once(':').ok_or_else(wrong)?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(wrong());
            }
            let key = BASE64_STANDARD.decode(key).map_err(|_| wrong())?;
            let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| wrong())?;
            if keys.get(name).is_some() {
                return Err(Error::Name(name.to_owned()));
            }
            keys.0.push((name.to_owned(), LessSafeKey::new(key)));
        }
        if keys.0.is_empty() {
            return Err(Error::Empty);
        }
        Ok(keys)
    }

    fn get(&self, name: &str) -> Option<&LessSafeKey> {
        let mut keys = self.0.iter();
        keys.find_map(|(known, key)| (known == name).then_some(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_has_named_keys_and_errors_quote_none() {
        let (one, two) = (new_key(), new_key());
        assert_ne!(one, two);
        let keys = Keys::parse([one.as_str(), " ", &two].into_iter()).expect("keys");
        assert_eq!(keys.0.len(), 2);
        let secret = one.split(':').next_back().expect("a key");
        for wrong in [
            "",
            secret,
            &format!("a b:{secret}"),
            &format!("a:{}", &secret[4..]),
            &format!("a:{secret},a:{secret}"),
        ] {
            let error = Keys::parse(wrong.split(','))
                .err()
                .expect(wrong)
                .to_string();
            assert!(!error.contains(&secret[4..12]), "{error}");
        }
    }
}
