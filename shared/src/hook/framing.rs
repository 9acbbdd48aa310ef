//! Request headers that frame a request or belong to the connection. They are ours: a hook that sets one of them could
//! cut its body short, or make one request look like two.

use axum::http::{HeaderMap, HeaderName, header};

use super::allowances;

/// Beside `Host`, which a setting allows.
const FRAMING: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
];
const HOP_BY_HOP: [&str; 4] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "http2-settings",
];

#[must_use]
pub fn is_framing(name: &HeaderName) -> bool {
    FRAMING.contains(name)
        || HOP_BY_HOP.contains(&name.as_str())
        || (*name == header::HOST && !allowances::host_header())
}

/// Removes what a hook may not set.
pub fn strip(headers: &mut HeaderMap) {
    for name in FRAMING {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if is_framing(&header::HOST) {
        headers.remove(header::HOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_also_stripped() {
        let names = [
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "TE",
            "Upgrade",
            "HOST",
            "Expect",
            "Trailer",
            "Keep-Alive",
            "proxy-connection",
            "Proxy-Authorization",
            "HTTP2-Settings",
            "content-type",
            "x-host",
        ];
        let mut headers = HeaderMap::new();
        for name in names {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.insert(name, "1".parse().expect("a value"));
        }
        let kept: Vec<_> = headers
            .keys()
            .filter(|name| !is_framing(name))
            .cloned()
            .collect();
        assert_eq!(kept, ["content-type", "x-host"]);
        strip(&mut headers);
        assert_eq!(headers.len(), kept.len());
        assert!(kept.iter().all(|name| headers.contains_key(name)));
    }
}
