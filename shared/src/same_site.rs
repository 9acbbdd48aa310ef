//! Refuses what web pages of other sites make a browser send: requests that change something, and requests to a
//! loopback address under a name that only looks like one (DNS rebinding).
//!
//! Browsers say where a request comes from; other clients say nothing, and are let through.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use url::{Host, Url};

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// What a listener lets through.
#[derive(Debug, Clone, Default)]
pub struct SameSite {
    /// Whether clients reach it over loopback only.
    is_loopback: bool,
    /// Other origins whose pages may change something, such as `https://console.example.com`.
    origins: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the request comes from a page of another site")]
    CrossSite,
    #[error("on a loopback address the Host header must be localhost or a loopback address")]
    Host,
}

impl SameSite {
    #[must_use]
    pub fn new(listener: SocketAddr, origins: &[String]) -> Self {
        Self {
            is_loopback: listener.ip().is_loopback(),
            origins: origins.to_vec(),
        }
    }

    /// The origin of the page that makes a request, if it is listed: it may read the answer.
    #[must_use]
    pub fn listed_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut values = headers.get_all(header::ORIGIN).iter();
        let origin = values.next().filter(|_| values.next().is_none())?;
        let is_listed = self
            .origins
            .iter()
            .any(|one| one.as_bytes() == origin.as_bytes());
        is_listed.then_some(origin)
    }

    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        let text = |name: &str| {
            let mut values = headers.get_all(name).iter();
            let value = values.next().map(|value| value.to_str().unwrap_or("?"));
            // Two of them are none that could be trusted.
            if values.next().is_some() {
                Some("?")
            } else {
                value
            }
        };
        let host = text(header::HOST.as_str());
        if self.is_loopback && host.is_some_and(|host| !is_loopback(host)) {
            return Err(Refused::Host);
        }
        if method.is_safe() {
            return Ok(());
        }
        let origin = text(header::ORIGIN.as_str());
        let is_listed = origin.is_some_and(|origin| self.origins.iter().any(|one| one == origin));
        let is_same = match (text(SEC_FETCH_SITE), origin) {
            (Some(site), _) => matches!(site, "same-origin" | "none"),
            (None, Some(origin)) => is_of_host(origin, host),
            (None, None) => true,
        };
        if is_same || is_listed {
            Ok(())
        } else {
            Err(Refused::CrossSite)
        }
    }
}

/// The host of a `Host` header, and its port.
fn authority(host: &str) -> Option<(Host, Option<u16>)> {
    let url = Url::parse(&format!("http://{host}/")).ok()?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && !host.contains('/');
    is_plain.then_some(())?;
    Some((url.host()?.to_owned(), url.port()))
}

fn is_loopback(host: &str) -> bool {
    match authority(host) {
        Some((Host::Domain(name), _)) => name == "localhost" || name.ends_with(".localhost"),
        Some((Host::Ipv4(address), _)) => IpAddr::V4(address).is_loopback(),
        Some((Host::Ipv6(address), _)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

fn is_of_host(origin: &str, host: Option<&str>) -> bool {
    let Ok(origin) = Url::parse(origin) else {
        return false;
    };
    let default = |port: Option<u16>| port.or_else(|| origin.port_or_known_default());
    let host = host.and_then(authority);
    host.is_some_and(|(name, port)| {
        origin.host().map(|host| host.to_owned()) == Some(name)
            && default(origin.port()) == default(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        listener: &str,
        method: Method,
        headers: &[(&'static str, &str)],
    ) -> Result<(), Refused> {
        let origins = ["https://console.example.com".to_owned()];
        let same_site = SameSite::new(listener.parse().expect("an address"), &origins);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        same_site.check(&method, &map)
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let host = ("host", "admin.example.com:8001");
        for (headers, is_let_through) in [
            (vec![], true),
            (vec![("origin", "https://evil.example")], false),
            (vec![("origin", "null")], false),
            (vec![("origin", "http://admin.example.com:8001")], true),
            (vec![("origin", "http://admin.example.com")], false),
            (vec![("origin", "http://admin.example.com:8002")], false),
            (
                vec![("origin", "http://admin.example.com.evil.example:8001")],
                false,
            ),
            (vec![("origin", "https://console.example.com")], true),
            (
                vec![
                    ("origin", "https://console.example.com"),
                    ("sec-fetch-site", "cross-site"),
                ],
                true,
            ),
            (
                vec![
                    ("origin", "http://admin.example.com:8001"),
                    ("origin", "https://evil.example"),
                ],
                false,
            ),
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "none")], true),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "http://admin.example.com:8001"),
                ],
                false,
            ),
            (
                vec![
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
        ] {
            let all = [vec![host], headers.clone()].concat();
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                let checked = check("10.0.0.1:8001", method, &all);
                assert_eq!(checked.is_ok(), is_let_through, "{headers:?}");
            }
            assert_eq!(
                check("10.0.0.1:8001", Method::GET, &all),
                Ok(()),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_loopback_listener_has_a_loopback_name() {
        for (host, is_let_through) in [
            ("localhost", true),
            ("localhost:8001", true),
            ("LOCALHOST:8001", true),
            ("hookline.localhost:8001", true),
            ("127.0.0.1:8001", true),
            ("127.0.0.2", true),
            ("[::1]:8001", true),
            ("evil.example:8001", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("10.0.0.1", false),
            ("evil.example/localhost", false),
            ("localhost@evil.example", false),
            ("", false),
        ] {
            for method in [Method::GET, Method::POST] {
                let checked = check("127.0.0.1:8001", method.clone(), &[("host", host)]);
                assert_eq!(checked.is_ok(), is_let_through, "{host}");
                assert_eq!(
                    check("0.0.0.0:8001", method, &[("host", host)]),
                    Ok(()),
                    "{host}"
                );
            }
        }
    }
}
