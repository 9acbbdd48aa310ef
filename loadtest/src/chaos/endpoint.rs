//! A receiver that verifies signatures, keeps a ledger, and misbehaves on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hookline_shared::signature::Signer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::ledger::Ledger;

/// The signing secret of every hook in a fault run.
pub const SECRET: &str = "the ledger's secret";

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
const BROKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-len";
const GARBAGE: &[u8] = b"\x16\x03\x01 this is not HTTP\r\n\r\n";
const ENDLESS: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ntransfer-encoding: chunked\r\n\r\n";
const BIG_HEADER: &[u8] = b"HTTP/1.1 200 OK\r\nx-big: ";

const UNHURRIED: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_secs(5);
/// In bytes; larger than any request of a fault run.
const BUFFER: usize = 64 << 10;

/// How an endpoint behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Answers 200 at once.
    Well,
    /// Answers 500 at once.
    Failing,
    /// Answers 200 after 50 ms.
    Unhurried,
    /// Never answers.
    Silent,
    /// Answers 500 after five seconds.
    Slow,
    /// Closes in the middle of its answer's head.
    Breaking,
    /// Answers with bytes that are not HTTP.
    Babbling,
    /// Answers with a body that does not end.
    Endless,
    /// Answers with a header of 10 MiB.
    Pompous,
    /// Refuses connections; cannot be changed later.
    Refusing,
}

const MOODS: [Mood; 10] = [
    Mood::Well,
    Mood::Failing,
    Mood::Unhurried,
    Mood::Silent,
    Mood::Slow,
    Mood::Breaking,
    Mood::Babbling,
    Mood::Endless,
    Mood::Pompous,
    Mood::Refusing,
];

#[derive(Debug)]
pub struct Endpoint {
    pub url: String,
    pub ledger: Ledger,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    mood: AtomicU8,
    ledger: Ledger,
    signer: Signer,
    /// Requests whose signature was wrong or missing.
    forged: AtomicU64,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Endpoint {
    pub async fn start(mood: Mood) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let ledger = Ledger::default();
        let state = Arc::new(State {
            mood: AtomicU8::new(mood as u8),
            ledger: ledger.clone(),
            signer: Signer::new(SECRET, hookline_shared::signature::Algorithm::Sha256),
            forged: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            if mood == Mood::Refusing {
                return drop(listener);
            }
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                // A broken connection is the client's concern.
                tokio::spawn(async move { serve(stream, &state).await.ok() });
            }
        });
        Ok(Self {
            url,
            ledger,
            state,
            task,
        })
    }

    pub fn port(&self) -> Result<u16> {
        let url: url::Url = self.url.parse()?;
        url.port().context("an endpoint has a port")
    }

    pub fn set(&self, mood: Mood) {
        self.state.mood.store(mood as u8, Ordering::Relaxed);
    }

    /// Requests whose signature was wrong or missing.
    #[must_use]
    pub fn forged(&self) -> u64 {
        self.state.forged.load(Ordering::Relaxed)
    }

    /// All requests, whatever the answer.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Peak of requests in flight.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.state.most_in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Request<'a> {
    id: &'a str,
    timestamp: &'a str,
    signature: &'a str,
    body: &'a [u8],
    end: usize,
}

async fn serve(mut stream: TcpStream, state: &State) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            read => filled += read,
        }
        while let Some(request) = parse(&buffer[..filled]) {
            let now = state.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            state.most_in_flight.fetch_max(now, Ordering::Relaxed);
            let answered = answer(&mut stream, state, &request).await;
            state.in_flight.fetch_sub(1, Ordering::Relaxed);
            answered?;
            let end = request.end;
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
    }
}

async fn answer(stream: &mut TcpStream, state: &State, request: &Request<'_>) -> Result<()> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    match MOODS[usize::from(state.mood.load(Ordering::Relaxed))] {
        Mood::Well => {
            state.record(request);
            stream.write_all(OK).await?;
        }
        Mood::Failing => stream.write_all(FAILED).await?,
        Mood::Unhurried => {
            state.record(request);
            tokio::time::sleep(UNHURRIED).await;
            stream.write_all(OK).await?;
        }
        Mood::Silent => {
            // Until the client gives up.
            let mut rest = [0; 1];
            let _ = stream.read(&mut rest).await?;
            anyhow::bail!("the client left");
        }
        Mood::Slow => {
            tokio::time::sleep(SLOW).await;
            stream.write_all(FAILED).await?;
        }
        Mood::Refusing => anyhow::bail!("connections are refused"),
        Mood::Breaking => {
            stream.write_all(BROKEN).await?;
            stream.shutdown().await?;
            anyhow::bail!("closed in mid-answer");
        }
        Mood::Babbling => {
            stream.write_all(GARBAGE).await?;
            stream.shutdown().await?;
            anyhow::bail!("sent garbage");
        }
        Mood::Endless => {
            stream.write_all(ENDLESS).await?;
            let chunk = [b"8000\r\n".as_slice(), &[b'x'; 0x8000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Mood::Pompous => {
            stream.write_all(BIG_HEADER).await?;
            let part = vec![b'x'; 64 << 10];
            for _ in 0..160 {
                stream.write_all(&part).await?;
            }
            stream.write_all(b"\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }
    Ok(())
}

impl State {
    fn record(&self, request: &Request<'_>) {
        let timestamp = request.timestamp.parse().unwrap_or_default();
        let expected = self.signer.standard(request.id, timestamp, request.body);
        if request.signature != expected {
            self.forged.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(number) = number(request.body) {
            self.ledger.arrived(number, request.id);
        }
    }
}

/// The number in an event of the load or of a created consumer; a ping has none.
fn number(body: &[u8]) -> Option<usize> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    match body.get("number") {
        Some(number) => usize::try_from(number.as_u64()?).ok(),
        None => body.get("entity")?.get("custom_id")?.as_str()?.parse().ok(),
    }
}

fn parse(bytes: &[u8]) -> Option<Request<'_>> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let (mut length, mut id, mut timestamp, mut signature) = (0, "", "", "");
    for line in std::str::from_utf8(&bytes[..head]).ok()?.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "webhook-id" => id = value,
            "webhook-timestamp" => timestamp = value,
            "webhook-signature" => signature = value,
            _ => {}
        }
    }
    let end = head + length;
    Some(Request {
        id,
        timestamp,
        signature,
        body: bytes.get(head..end)?,
        end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_once_all_of_it_is_there() {
        let text = b"POST / HTTP/1.1\r\nWebhook-Id: a\r\nContent-Length: 12\r\n\r\n{\"number\":7}";
        let request = parse(text).expect("all of it");
        assert_eq!((request.id, request.end), ("a", text.len()));
        assert_eq!(number(request.body), Some(7));
        assert!(parse(&text[..text.len() - 1]).is_none());
        assert_eq!(number(b"{}"), None);
    }
}
