//! Where hooks may connect to: globally routable addresses, and what the operator lists.
//!
//! Names are checked by the addresses they resolve to when a connection is made, so a DNS answer that changes
//! between check and use makes no difference. An IPv4 address inside an IPv6 one is judged by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

#[derive(Debug, Clone, Default)]
pub struct Policy {
    allow: Arc<[IpNet]>,
}

/// An address that hooks may not connect to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a public address")]
pub struct Refused(pub IpAddr);

impl Policy {
    /// Permits public addresses and the networks listed.
    #[must_use]
    pub fn new(allow: &[IpNet]) -> Self {
        Self {
            allow: allow.into(),
        }
    }

    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let address = address.to_canonical();
        if is_public(address) || self.allow.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        Err(Refused(address))
    }
}

/// Whether an address is globally routable, by the IANA special-purpose registries.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || (a == 192 && b == 88 && c == 99) // 6to4 relays
        || (a == 198 && (b == 18 || b == 19)); // benchmarks
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let inside = |high: u16, low: u16| {
        is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
    };
    match s {
        // Unspecified, loopback, IPv4-compatible and IPv4-mapped addresses.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => inside(high, low),
        // NAT64, for everybody and local.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inside(high, low),
        [0x64, 0xff9b, ..] => false,
        // 6to4.
        [0x2002, high, low, ..] => inside(high, low),
        // Discard, Teredo, benchmarks, ORCHID, documentation, segment routing.
        [0x100, 0, 0, ..] | [0x3fff, 0..=0xfff, ..] | [0x5f00, ..] => false,
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        // The rest is public if it is global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &Policy, address: &str) -> bool {
        policy.check(address.parse().expect("an address")).is_ok()
    }

    #[test]
    fn only_public_addresses_are_reached_by_default() {
        let policy = Policy::default();
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "fec0::1",
            "3fff::1",
        ] {
            assert!(!permits(&policy, address), "{address}");
        }
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2a00:1450::1",
        ] {
            assert!(permits(&policy, address), "{address}");
        }
    }

    #[test]
    fn listed_networks_are_reached_also_as_ipv4_in_ipv6() {
        let policy = Policy::new(&["127.0.0.0/8".parse().expect("a network")]);
        assert!(permits(&policy, "127.0.0.1"));
        assert!(permits(&policy, "::ffff:127.0.0.1"));
        assert!(!permits(&policy, "10.0.0.1"));
        assert!(!permits(&policy, "::1"));
    }
}
