//! Bounds how many wrong tokens an address may try.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;

use crate::limits::Allowance;

/// Wrong tokens that an address may try at once.
const BURST: f64 = 20.0;
/// How many more it earns each second.
const PER_SECOND: f64 = 1.0;
/// Requests a second with tokens that were right before, from an address that may not try others.
const KNOWN_BURST: f64 = 100.0;
const KNOWN_PER_SECOND: f64 = 50.0;
/// Addresses that are remembered.
const ADDRESSES: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<IpAddr, Tries>>);

#[derive(Debug)]
struct Tries {
    wrong: Allowance,
    known: Allowance,
}

impl Throttle {
    /// Whether the address may try a token that was not right before; else when.
    pub(crate) fn may_try(&self, address: IpAddr) -> Result<(), Duration> {
        let mut addresses = self.0.lock();
        let Some(tries) = addresses.get_mut(&place(address)) else {
            return Ok(());
        };
        let left = tries.wrong.refill(BURST, PER_SECOND);
        if left >= 1.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - left) / PER_SECOND))
    }

    /// Whether the address may say a token that was right before, which costs it something only while it may not try
    /// others: else it could try out those in use as fast as it likes.
    pub(super) fn may_use_known(&self, address: IpAddr) -> Result<(), Duration> {
        let Err(wait) = self.may_try(address) else {
            return Ok(());
        };
        let mut addresses = self.0.lock();
        let Some(tries) = addresses.get_mut(&place(address)) else {
            return Ok(());
        };
        let taken = tries.known.take(KNOWN_BURST, KNOWN_PER_SECOND);
        taken.map_err(|_| wait)
    }

    pub(crate) fn was_wrong(&self, address: IpAddr) {
        let mut addresses = self.0.lock();
        if addresses.len() >= ADDRESSES {
            addresses.retain(|_, tries| tries.wrong.refill(BURST, PER_SECOND) < BURST);
        }
        if addresses.len() >= ADDRESSES {
            // All of them are being slowed down: forgetting them costs less than growing without bound.
            addresses.clear();
        }
        let tries = addresses.entry(place(address)).or_insert_with(|| Tries {
            wrong: Allowance::full(BURST),
            known: Allowance::full(KNOWN_BURST),
        });
        tries.wrong.spend(BURST, PER_SECOND);
    }
}

/// What counts as one address: of IPv6 a network of 2^64, since its owner has all of them.
pub(crate) fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_wrong_again_and_again_waits() {
        let throttle = Throttle::default();
        let [bad, good] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().expect("an address"));
        for _ in 0..BURST as usize {
            assert!(throttle.may_try(bad).is_ok());
            throttle.was_wrong(bad);
        }
        let wait = throttle.may_try(bad).expect_err("too many");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert!(throttle.may_try(good).is_ok());
        let known = (0..200)
            .filter(|_| throttle.may_use_known(bad).is_ok())
            .count();
        assert!((100..110).contains(&known), "{known}");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let [one, two, other] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
            .map(|text| place(text.parse().expect("an address")));
        assert!(one == two && one != other);
        let mapped = place("::ffff:10.0.0.1".parse().expect("an address"));
        assert_eq!(mapped, place("10.0.0.1".parse().expect("an address")));
    }
}
