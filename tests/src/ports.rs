//! Ports for servers that must be told theirs before they start, or keep it
//! over a restart. They lie below the range from which the kernel serves
//! outgoing connections, so that none of those takes one in between.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

const FIRST: u32 = 15_000;
const COUNT: u32 = 17_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that nothing listens on, and that this process hands out once.
///
/// # Errors
/// When no port is free.
pub fn free() -> Result<u16> {
    // Two test processes at once start in different places.
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
