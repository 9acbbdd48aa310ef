//! Rules for single values, worded as in Kong.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::access::token::{DIGEST_PREFIX, is_generated};

/// Longest value of a unique field in bytes: it becomes a percent-encoded subject token.
pub(crate) const MAX_UNIQUE: usize = 512;

/// Whether a text is a UUID in hyphenated form.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

pub(super) fn uuid(value: &Value) -> Result<(), String> {
    ensure(is_uuid(text(value)), || "expected a valid UUID".to_owned())
}

/// A display name: any letters, but only URL-safe ASCII.
pub(super) fn name(value: &Value) -> Result<(), String> {
    let text = text(value);
    let sound = text.chars().all(|c| {
        if c.is_ascii() {
            is_plain(c)
        } else {
            !c.is_control() && !c.is_whitespace()
        }
    });
    ensure(sound, || {
        format!(
            "invalid value '{text}': the only accepted ascii characters are alphanumerics or \
             ., -, _, and ~"
        )
    })
}

/// A name that can be the first segment of a path.
pub(super) fn plain_name(value: &Value) -> Result<(), String> {
    let text = text(value);
    ensure(text.chars().all(is_plain), || {
        format!("invalid value '{text}': it should only contain alphanumerics or ., -, _, and ~")
    })
}

pub(super) fn tag(value: &Value) -> Result<(), String> {
    let text = text(value);
    let sound = !text
        .chars()
        .any(|c| c.is_control() || matches!(c, ',' | '/'));
    ensure(sound, || {
        format!(
            "invalid tag '{text}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
        )
    })
}

pub(super) fn method(value: &Value) -> Result<(), String> {
    let text = text(value);
    ensure(text.chars().all(|c| c.is_ascii_uppercase()), || {
        format!("invalid value: {text}")
    })
}

pub(super) fn path(value: &Value) -> Result<(), String> {
    let text = text(value);
    ensure(text.starts_with('/'), || "should start with: /".to_owned())?;
    ensure(!text.contains("//"), || {
        "must not have empty segments".to_owned()
    })
}

pub(super) fn route_path(value: &Value) -> Result<(), String> {
    let text = text(value);
    if text.starts_with('~') {
        return Ok(());
    }
    ensure(text.starts_with('/'), || {
        "should start with: / (fixed path) or ~/ (regex path)".to_owned()
    })?;
    path(value)
}

pub(super) fn host(value: &Value) -> Result<(), String> {
    let text = text(value);
    let sound = url::Host::parse(text).is_ok() || text.parse::<std::net::Ipv6Addr>().is_ok();
    ensure(sound && !text.contains(['*', '/', '@']), || {
        format!("invalid value: {text}")
    })
}

/// A host of a route: may have a port, or a wildcard at one end.
pub(super) fn route_host(value: &Value) -> Result<(), String> {
    let text = text(value);
    let plain = text
        .strip_prefix("*.")
        .or_else(|| text.strip_suffix(".*"))
        .unwrap_or(text);
    let (plain, port) = plain.rsplit_once(':').unwrap_or((plain, "0"));
    ensure(!plain.is_empty() && port.parse::<u16>().is_ok(), || {
        format!("invalid value: {text}")
    })?;
    host(&Value::from(plain)).map_err(|_| format!("invalid value: {text}"))
}

/// A host, or all hosts below one.
pub(super) fn wildcard_host(value: &Value) -> Result<(), String> {
    let text = text(value);
    let plain = text.strip_prefix("*.").or_else(|| text.strip_suffix(".*"));
    let plain = plain.unwrap_or(text);
    host(&Value::from(plain)).map_err(|_| format!("invalid value: {text}"))
}

pub(super) fn host_with_port(value: &Value) -> Result<(), String> {
    let text = text(value);
    let (name, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    ensure(port.parse::<u16>().is_ok(), || {
        "Invalid hostname".to_owned()
    })?;
    host(&Value::from(name)).map_err(|_| format!("invalid value: {text}"))
}

pub(super) fn header_name(value: &Value) -> Result<(), String> {
    let text = text(value);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    ensure(text.bytes().all(is_name), || {
        format!("bad header name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'")
    })
}

pub(super) fn cookie_name(value: &Value) -> Result<(), String> {
    let text = text(value);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    ensure(text.bytes().all(is_name), || {
        format!("bad cookie name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'")
    })
}

pub(super) fn ip_or_cidr(value: &Value) -> Result<(), String> {
    let text = text(value);
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    ensure(is_address || text.parse::<ipnet::IpNet>().is_ok(), || {
        format!("invalid ip or cidr range: '{text}'")
    })
}

pub(super) fn url(value: &Value) -> Result<(), String> {
    let text = text(value);
    ensure(text.contains("://"), || "missing scheme in url".to_owned())?;
    let url = url::Url::parse(text).map_err(|_| "missing host in url".to_owned())?;
    ensure(url.has_host(), || "missing host in url".to_owned())
}

pub(super) fn redirect_uri(value: &Value) -> Result<(), String> {
    let text = text(value);
    let url = url::Url::parse(text);
    let is_whole = url.as_ref().is_ok_and(url::Url::has_host);
    ensure(is_whole, || format!("cannot parse '{text}'"))?;
    ensure(url.is_ok_and(|url| url.fragment().is_none()), || {
        format!("fragment not allowed in '{text}'")
    })
}

pub(super) const PROTOCOLS: &[&str] = &[
    "grpc",
    "grpcs",
    "http",
    "https",
    "tcp",
    "tls",
    "tls_passthrough",
    "udp",
    "ws",
    "wss",
];

pub(super) fn email(value: &Value) -> Result<(), String> {
    let text = text(value);
    let sound = text
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    ensure(sound && !text.contains(char::is_whitespace), || {
        format!("invalid value: {text}")
    })
}

/// An id that follows from what an entity is of.
pub(crate) fn derived_id(of: &[&str]) -> String {
    let digest = Sha256::digest(of.join("\n"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    id.to_string()
}

/// What begins generated tokens. They are hashed faster, since nobody can guess them.
pub(crate) const TOKEN_PREFIX: &str = "hookline_";
const MIN_TOKEN: usize = 8;

/// A token that somebody chose.
pub(crate) fn check_token(token: &str) -> Result<(), String> {
    self::token(&Value::from(token))
}

pub(super) fn token(value: &Value) -> Result<(), String> {
    let text = text(value);
    ensure(text.len() >= MIN_TOKEN, || {
        format!("length must be at least {MIN_TOKEN}")
    })?;
    ensure(text.bytes().all(|byte| byte.is_ascii_graphic()), || {
        "a header must be able to hold it: letters, digits and marks of ASCII".to_owned()
    })?;
    ensure(!text.starts_with(TOKEN_PREFIX), || {
        format!("{TOKEN_PREFIX} begins generated tokens: leave it out to have one generated")
    })
}

pub(super) const NOT_GENERATED: &str = "leave it out to have one made, or give hookline_ and 32 random bytes in base64url without padding";

/// A token that nobody can guess, or what is stored of one.
pub(super) fn generated_token(value: &Value) -> Result<(), String> {
    let text = text(value);
    let is_stored = text.starts_with(DIGEST_PREFIX);
    ensure(is_stored || is_generated(text), || NOT_GENERATED.to_owned())
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~')
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn ensure(sound: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if sound { Ok(()) } else { Err(message()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_routes_may_have_wildcards_and_ports() {
        for host in [
            "example.com",
            "*.example.com",
            "example.*",
            "example.com:8080",
            "10.0.0.1",
        ] {
            assert_eq!(route_host(&host.into()), Ok(()), "{host}");
        }
        for host in ["", "*", "a b", "example.com:x", "http://example.com", ":80"] {
            assert!(route_host(&host.into()).is_err(), "{host}");
        }
    }

    #[test]
    fn names_take_any_letters_but_no_spaces_or_slashes() {
        for text in ["my-service", "é漢字", "a.b~c_d"] {
            assert_eq!(name(&text.into()), Ok(()), "{text}");
        }
        for text in ["a b", "a/b", "a\u{a0}b"] {
            assert!(name(&text.into()).is_err(), "{text}");
        }
    }
}
