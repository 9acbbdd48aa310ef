//! Checks a hook field by field. Messages use the words of Kong's schema errors.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use url::Url;

use super::allowances;
use super::config::{Headers, Secret};
use super::delivery_options::DeliveryOptions;
use super::framing::is_framing;
use crate::lua;
use crate::signature::check_secret;
use crate::vault;

const MAX_RETRIES: usize = 50;
/// Seconds: 30 days.
const MAX_RETRY_DELAY: f64 = 2_592_000.0;
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Per dispatcher.
const MAX_CONCURRENCY: u32 = 1_000;
/// Deliveries a second.
const MAX_RATE: f64 = 100_000.0;
/// Seconds for which a circuit opens at first.
const MAX_OPEN: f64 = 300.0;
/// Headers, and keys of a payload.
const MAX_PARTS: usize = 100;
/// In bytes; the longest that servers take.
const MAX_URL: usize = 8 << 10;
const MAX_FUNCTIONS: usize = 16;
const MAX_AUTHORITIES: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// A path, such as `config.url`.
    pub field: String,
    pub message: String,
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) violations: Vec<Violation>,
    /// Whether the hook is being made or changed.
    pub(super) is_new: bool,
}

impl Found {
    pub(super) fn check(&mut self, field: &str, result: Result<(), String>) {
        if let Err(message) = result {
            self.violations.push(Violation {
                field: field.to_owned(),
                message,
            });
        }
    }

    pub(super) fn headers(&mut self, headers: Option<&Headers>, templated: bool) {
        let framing = if self.is_new {
            framing_headers(headers)
        } else {
            Ok(())
        };
        self.check(
            "config.headers",
            self::headers(headers, templated).and(framing),
        );
        let values = headers.iter().flat_map(|headers| headers.0.values());
        for value in values.filter(|value| vault::is_reference(value)) {
            self.reference("config.headers", value);
        }
    }

    pub(super) fn url(&mut self, url: &str) {
        if vault::is_reference(url) {
            return self.reference("config.url", url);
        }
        let templated = ["{{", "{%"].iter().any(|tag| url.contains(tag));
        let plain = if templated && self.is_new {
            Err(
                "a url is no template; what varies can stand in headers, payload or body"
                    .to_owned(),
            )
        } else {
            Ok(())
        };
        let short = if url.len() > MAX_URL && self.is_new {
            Err(format!("length must be at most {MAX_URL}"))
        } else {
            Ok(())
        };
        self.check("config.url", short.and(self::url(url)).and(plain));
    }

    /// Chunks of new hooks are run, to see that they return functions.
    pub(super) fn functions(&mut self, functions: &[String]) {
        let compile = if self.is_new {
            lua::check
        } else {
            lua::compile
        };
        self.check("config.functions", self::functions(functions, compile));
    }

    pub(super) fn secret(&mut self, field: &str, secret: Option<&Secret>) {
        let Some(secret) = secret.map(Secret::expose).filter(|_| self.is_new) else {
            return;
        };
        if vault::is_reference(secret) {
            return self.reference(field, secret);
        }
        self.check(field, check_secret(secret));
    }

    pub(super) fn verification(&mut self, url: &str, verify: bool) {
        let refused = !verify && !allowances::unverified_tls() && has_tls(url);
        let result = if refused {
            Err(
                "a receiver's certificate is always verified here: name its authority in ca_certificates, or ask the \
                 operator for HOOKLINE_ALLOW_UNVERIFIED_TLS"
                    .to_owned(),
            )
        } else {
            Ok(())
        };
        self.check("config.ssl_verify", result);
    }

    pub(super) fn authorities(&mut self, ids: Option<&[String]>) {
        let result = match ids {
            Some([]) => Err("length must be at least 1".to_owned()),
            Some(ids) if ids.len() > MAX_AUTHORITIES => {
                Err(format!("length must be at most {MAX_AUTHORITIES}"))
            }
            _ => Ok(()),
        };
        self.check("config.ca_certificates", result);
    }

    pub(super) fn previous_secret(&mut self, secret: Option<&Secret>, until: Option<i64>) {
        self.secret("config.previous_secret", secret);
        if self.is_new && secret.is_some() && until.is_none() {
            let field = "config.previous_secret_until";
            self.check(field, Err("required field missing".to_owned()));
        }
    }

    fn reference(&mut self, field: &str, reference: &str) {
        let result = vault::check(reference).map_err(|error| error.to_string());
        self.check(field, result);
    }

    pub(super) fn delivery(&mut self, options: &DeliveryOptions) {
        let between = |value: f64, low: f64, high: f64| {
            if value >= low && value <= high {
                Ok(())
            } else {
                Err(format!("value should be between {low} and {high}"))
            }
        };
        if let Some(concurrency) = options.concurrency {
            let result = between(concurrency.into(), 1.0, MAX_CONCURRENCY.into());
            self.check("delivery.concurrency", result);
        }
        if let Some(timeout) = options.timeout {
            self.check(
                "delivery.timeout",
                between(timeout, 0.001, MAX_TIMEOUT.as_secs_f64()),
            );
        }
        if let Some(steps) = &options.retry {
            let result = if steps.len() > MAX_RETRIES {
                Err(format!("length must be at most {MAX_RETRIES}"))
            } else {
                steps
                    .iter()
                    .try_for_each(|step| between(*step, 0.0, MAX_RETRY_DELAY))
            };
            self.check("delivery.retry", result);
        }
        if let Some(rate) = options.rate_limit {
            self.check("delivery.rate_limit", between(rate, 0.001, MAX_RATE));
        }
        if let Some(age) = options.max_age {
            self.check("delivery.max_age", between(age, 1.0, MAX_RETRY_DELAY));
        }
        if let Some(circuit) = &options.circuit_breaker {
            if let Some(rate) = circuit.failure_rate {
                let field = "delivery.circuit_breaker.failure_rate";
                self.check(field, between(rate, 0.01, 1.0));
            }
            if let Some(open) = circuit.open {
                self.check(
                    "delivery.circuit_breaker.open",
                    between(open, 0.1, MAX_OPEN),
                );
            }
        }
    }
}

/// A vault may have any URL.
fn has_tls(url: &str) -> bool {
    Url::parse(url).map_or(true, |url| url.scheme() != "http")
}

fn url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("could not parse url. {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("expected the scheme http or https in url".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("missing host in url".to_owned());
    }
    Ok(())
}

pub(super) fn method(text: &str) -> Result<(), String> {
    let sound = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase());
    // It asks a proxy for a tunnel.
    if sound && text != "CONNECT" {
        Ok(())
    } else {
        Err(format!("invalid value: {text}"))
    }
}

fn headers(headers: Option<&Headers>, templated: bool) -> Result<(), String> {
    if headers.is_some_and(|headers| headers.0.len() > MAX_PARTS) {
        return Err(format!("length must be at most {MAX_PARTS}"));
    }
    for (name, value) in headers.iter().flat_map(|headers| &headers.0) {
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| "invalid header name".to_owned())?;
        if !templated {
            HeaderValue::from_str(value).map_err(|_| format!("{name}: invalid header value"))?;
        }
    }
    Ok(())
}

fn framing_headers(headers: Option<&Headers>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in headers.iter().flat_map(|headers| headers.0.keys()) {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        if is_framing(&parsed) {
            return Err(format!(
                "{name}: this header frames the request and cannot be set"
            ));
        }
        if !seen.insert(parsed) {
            return Err(format!(
                "{name}: the header is there twice, in two spellings"
            ));
        }
    }
    Ok(())
}

pub(super) fn payload(payload: Option<&BTreeMap<String, String>>) -> Result<(), String> {
    if payload.is_some_and(|payload| payload.len() > MAX_PARTS) {
        return Err(format!("length must be at most {MAX_PARTS}"));
    }
    Ok(())
}

fn functions(
    functions: &[String],
    compile: impl Fn(&str) -> Result<lua::Script, lua::Error>,
) -> Result<(), String> {
    if functions.is_empty() {
        return Err("length must be at least 1".to_owned());
    }
    if functions.len() > MAX_FUNCTIONS {
        return Err(format!("length must be at most {MAX_FUNCTIONS}"));
    }
    functions.iter().try_for_each(|source| {
        compile(source)
            .map(drop)
            .map_err(|error| format!("Error parsing function: {error}"))
    })
}
