//! Ports for servers that need to know theirs before they start, or keep it over a restart. They lie
//! below the range that the kernel uses for outgoing connections, so that none of those takes one first.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

const FIRST: u32 = 15_000;
const COUNT: u32 = 17_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that is free now, and that this process hands out only once.
pub fn free() -> Result<u16> {
    // Test processes that run at the same time start in different places.
    let offset = std::process::id().wrapping_mul(397);
    for _ in 0..COUNT {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + offset.wrapping_add(turn) % COUNT)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}
