//! A receiver that is cheap enough not to be what is measured: it reads requests as far as it must
//! to find their end, counts them, and answers 200.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// Larger than any request of a measurement.
const BUFFER: usize = 64 << 10;

/// A running receiver.
pub struct Receiver {
    /// Where it listens.
    pub url: String,
    count: Arc<AtomicU64>,
    first: watch::Receiver<Option<Instant>>,
}

impl Receiver {
    /// Starts a receiver on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let count = Arc::new(AtomicU64::new(0));
        let (started, first) = watch::channel(None);
        let (counter, started) = (Arc::clone(&count), Arc::new(started));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counter, started) = (Arc::clone(&counter), Arc::clone(&started));
                tokio::spawn(async move { serve(stream, &counter, &started).await });
            }
        });
        Ok(Self { url, count, first })
    }

    /// Waits for `wanted` more requests than `before`, and returns how long they took from the
    /// first one on.
    pub async fn measure(&mut self, before: u64, wanted: u64) -> Result<Duration> {
        let first = self.first.wait_for(Option::is_some);
        let first = *tokio::time::timeout(Duration::from_secs(60), first)
            .await
            .context("no request came within a minute")??;
        let first = first.context("the time of the first request is known")?;
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let count = self.count() - before;
            if count >= wanted {
                return Ok(first.elapsed());
            }
            if count > seen {
                (seen, since) = (count, Instant::now());
            }
            ensure!(
                since.elapsed() < Duration::from_secs(30),
                "stuck at {count} of {wanted} requests"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Requests so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, count: &AtomicU64, started: &watch::Sender<Option<Instant>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
        while let Some(end) = request_end(&buffer[..filled]) {
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                started.send_replace(Some(Instant::now()));
            }
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
        if filled == buffer.len() {
            return;
        }
    }
}

/// Where the first request ends, if all of it is there.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let length = std::str::from_utf8(&bytes[..head])
        .ok()?
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_after_its_body() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST";
        assert_eq!(request_end(request), Some(request.len() - 4));
        assert_eq!(request_end(&request[..request.len() - 5]), None);
        assert_eq!(request_end(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
        assert_eq!(request_end(b"GET / HTTP"), None);
    }
}
