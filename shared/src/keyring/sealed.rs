//! An entity with its secrets sealed, as the bucket has it.
//!
//! Each has a data key of its own, drawn at each write, which seals its secrets (AES-256-GCM, with the entity's id and the
//! field's name, so that no value can be put elsewhere). A key of the keyring seals
//! the data key: the field `sealed` is `v1.<name>.<data key>`.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::{Map, Value};

use super::{KEY_BYTES, Keys, keys, read_again};
use crate::hook::REDACTED;
use crate::secrets;

const SEALED: &str = "sealed";
const VERSION: &str = "v1";

/// Carries the name of the key without which the secrets cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its secrets are sealed with the key '{0}', which the keyring does not have")]
pub struct MissingKey(pub String);

/// What this process could not open last.
static MISSING: Mutex<Option<MissingKey>> = Mutex::new(None);

/// What ends a start.
#[derive(Debug, thiserror::Error)]
#[error("{0}: add it to HOOKLINE_KEYRING; if it is lost, docs/security.md says what to do")]
pub struct Closed(MissingKey);

/// Whether all that this process has read so far could be opened.
pub fn check() -> Result<(), Closed> {
    match &*MISSING.lock() {
        None => Ok(()),
        Some(missing) => Err(Closed(missing.clone())),
    }
}

/// Seals an entity's secrets, if its kind has some and the process a keyring.
pub fn seal(kind: &str, entity: &mut Map<String, Value>) {
    if !secrets::kinds().any(|known| known == kind) {
        return;
    }
    let keys = keys();
    let Some((name, key)) = keys.0.first() else {
        return;
    };
    let mut random = [0; KEY_BYTES];
    getrandom::fill(&mut random).expect("the system has random bytes");
    let data_key = data_key(&random);
    let id = id(entity);
    secrets::each(kind, entity, |field, value| {
        *value = encrypt(&data_key, &format!("{id}/{field}"), value.as_bytes());
    });
    let wrapped = encrypt(key, &format!("{id}/{name}"), &random);
    let sealed = format!("{VERSION}.{name}.{wrapped}");
    entity.insert(SEALED.to_owned(), sealed.into());
}

/// Opens an entity's secrets, and returns the name of the key that they were sealed with, if they were. If they cannot be
/// opened, they are redacted.
pub fn open(kind: &str, entity: &mut Map<String, Value>) -> Result<Option<String>, MissingKey> {
    if !secrets::kinds().any(|known| known == kind) {
        return Ok(None);
    }
    let Some(sealed) = entity.remove(SEALED) else {
        return Ok(None);
    };
    let id = id(entity);
    let sealed = sealed.as_str().unwrap_or_default();
    let mut parts = sealed.split('.');
    let (version, name, wrapped) = (parts.next(), parts.next(), parts.next());
    let name = name.unwrap_or_default();
    let missing = || MissingKey(name.to_owned());
    let unwrap = |keys: &Keys| {
        let key = keys.get(name).filter(|_| version == Some(VERSION))?;
        let data_key = decrypt(key, &format!("{id}/{name}"), wrapped?)?;
        <[u8; KEY_BYTES]>::try_from(data_key).ok()
    };
    let data_key_bytes = unwrap(&keys()).or_else(|| unwrap(&read_again()));
    let data_key = data_key_bytes.map(|bytes| data_key(&bytes));
    let mut is_open = data_key.is_some();
    secrets::each(kind, entity, |field, value| {
        let plain = data_key.as_ref().and_then(|key| {
            let plain = decrypt(key, &format!("{id}/{field}"), value)?;
            String::from_utf8(plain).ok()
        });
        is_open &= plain.is_some();
        *value = plain.unwrap_or_else(|| REDACTED.to_owned());
    });
    if is_open {
        return Ok(Some(name.to_owned()));
    }
    *MISSING.lock() = Some(missing());
    Err(missing())
}

fn id(entity: &Map<String, Value>) -> String {
    let id = entity.get("id").and_then(Value::as_str);
    id.unwrap_or_default().to_owned()
}

fn data_key(bytes: &[u8; KEY_BYTES]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, bytes).expect("32 bytes are a key");
    LessSafeKey::new(key)
}

/// Nonce, ciphertext and tag.
fn encrypt(key: &LessSafeKey, of: &str, plain: &[u8]) -> String {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).expect("the system has random bytes");
    let mut sealed = plain.to_vec();
    let done = key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(of.as_bytes()),
        &mut sealed,
    );
    done.expect("a text is short enough");
    BASE64_URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())
}

fn decrypt(key: &LessSafeKey, of: &str, sealed: &str) -> Option<Vec<u8>> {
    let mut sealed = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
    let nonce = Nonce::try_assume_unique_for_key(sealed.get(..NONCE_LEN)?).ok()?;
    let plain = key.open_within(nonce, Aad::from(of.as_bytes()), &mut sealed, NONCE_LEN..);
    plain.ok().map(|plain| plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::{Options, new_key};
    use crate::subject::HOOK_KIND;
    use serde_json::json;

    fn hook() -> Map<String, Value> {
        let hook = json!({
            "id": "i", "handler": "webhook", "source": "crud",
            "config": {"url": "https://us3r:pa55@example.com/t0ken", "secret": "s3cret",
                "headers": {"authorization": "b3arer", "x": "h3ader"}, "ssl_verify": true},
        });
        hook.as_object().expect("an object").clone()
    }

    /// Of one process, which has one keyring: each test would disturb the others.
    #[test]
    fn a_sealed_hook_opens_with_its_key_only_and_nowhere_else() {
        let (one, two) = (new_key(), new_key());
        let apply = |keys: &str| {
            let options = Options {
                keyring: Some(keys.to_owned()),
                keyring_file: None,
            };
            options.apply().expect("a keyring");
        };
        apply(&one);
        let mut sealed = hook();
        seal(HOOK_KIND, &mut sealed);
        let text = Value::Object(sealed.clone()).to_string();
        for secret in ["us3r", "pa55", "t0ken", "s3cret", "b3arer", "h3ader"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(text.contains("authorization"), "{text}");
        let opened = |mut hook: Map<String, Value>| open(HOOK_KIND, &mut hook).map(|_| hook);
        assert_eq!(opened(sealed.clone()), Ok(hook()));
        apply(&format!("{two},{one}"));
        assert_eq!(opened(sealed.clone()), Ok(hook()), "an older key");
        let mut resealed = hook();
        seal(HOOK_KIND, &mut resealed);
        apply(&two);
        assert_eq!(opened(resealed), Ok(hook()), "the first key seals");
        let name = one.split(':').next().expect("a name").to_owned();
        assert_eq!(opened(sealed.clone()), Err(MissingKey(name)));
        let mut lost = sealed.clone();
        assert!(open(HOOK_KIND, &mut lost).is_err());
        assert_eq!(lost["config"]["secret"], REDACTED);
        // Put into another hook, or under another name.
        apply(&one);
        let mut other = sealed.clone();
        other.insert("id".to_owned(), json!("j"));
        assert!(opened(other).is_err());
        // Nor does a text that was never sealed: its receiver would get the secrets of the others.
        let mut elsewhere = sealed.clone();
        elsewhere["config"]["url"] = json!("https://elsewhere.example.com/");
        assert!(opened(elsewhere).is_err());
        let mut swapped = sealed;
        let headers = swapped["config"]["headers"]
            .as_object_mut()
            .expect("headers");
        let value = headers["x"].clone();
        headers.insert("authorization".to_owned(), value);
        assert!(opened(swapped).is_err());
        assert_eq!(opened(hook()), Ok(hook()), "one that is not sealed");
    }
}
