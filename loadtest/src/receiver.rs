//! A receiver cheap enough not to dominate the measurement: it parses requests only to find their end,
//! counts them, and responds. On request it verifies, delays, fails and detects repeats.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hookline_shared::signature::{Algorithm, Signer};
use memchr::{memchr_iter, memmem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{oneshot, watch};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAILURE: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
/// In bytes; larger than any measured request.
const BUFFER: usize = 64 << 10;

#[derive(Debug, Clone, Default, clap::Args)]
pub struct Behaviour {
    /// Delay before each response, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub delay: u64,
    /// Percentage of requests to answer with 500.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub fail: u64,
    /// Verify the Standard Webhooks signature with this secret.
    #[arg(long)]
    pub secret: Option<String>,
    /// Remember every webhook-id and count repeats.
    #[arg(long)]
    pub ledger: bool,
}

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: String,
    #[command(flatten)]
    behaviour: Behaviour,
}

/// Runs a receiver until interrupted, and prints counts every second.
#[expect(clippy::print_stdout, reason = "the lines are what the command is for")]
pub async fn run(options: &Options) -> Result<()> {
    let receiver = Receiver::listen(&options.listen, options.behaviour.clone()).await?;
    println!("listening on {}, until interrupted", receiver.url);
    let mut before = 0;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let now = receiver.count();
        if now != before {
            println!(
                "{:>8} /s  {now:>10} in all  {:>8} failed on purpose  {:>6} repeats  {:>6} bad signatures",
                now - before,
                receiver.state.failed.load(Ordering::Relaxed),
                receiver.repeats(),
                receiver.forged(),
            );
        }
        before = now;
    }
}

pub struct Receiver {
    pub url: String,
    state: Arc<State>,
    first: watch::Receiver<Option<Instant>>,
    /// Stops the receiver when dropped.
    _stop: oneshot::Sender<()>,
}

struct State {
    behaviour: Behaviour,
    signer: Option<Signer>,
    count: AtomicU64,
    failed: AtomicU64,
    forged: AtomicU64,
    /// Successful responses by webhook-id.
    ledger: Mutex<HashMap<String, u32>>,
    /// The epoch of the times in events, and one stamp per event.
    stamps: Option<(Instant, Mutex<Vec<Stamp>>)>,
    started: watch::Sender<Option<Instant>>,
}

/// An arrival, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Since the epoch.
    pub due: u64,
    /// From due to arrival.
    pub late: u64,
}

impl Receiver {
    /// Counts only, on a free port.
    pub async fn start() -> Result<Self> {
        Self::listen("127.0.0.1:0", Behaviour::default()).await
    }

    pub async fn listen(address: &str, behaviour: Behaviour) -> Result<Self> {
        Self::serve(address, behaviour, None).await
    }

    /// Reads from each event when it was due: `"at":` and the microseconds since `epoch`.
    pub async fn stamping(epoch: Instant) -> Result<Self> {
        Self::serve("127.0.0.1:0", Behaviour::default(), Some(epoch)).await
    }

    async fn serve(address: &str, behaviour: Behaviour, epoch: Option<Instant>) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (started, first) = watch::channel(None);
        let secret = behaviour.secret.as_deref();
        let state = Arc::new(State {
            signer: secret.map(|secret| Signer::new(secret, Algorithm::Sha256)),
            behaviour,
            count: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            forged: AtomicU64::new(0),
            ledger: Mutex::default(),
            stamps: epoch.map(|epoch| (epoch, Mutex::default())),
            started,
        });
        let serving = Arc::clone(&state);
        let (stop, stopped) = oneshot::channel();
        let listener = listener.into_std()?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || runtime.block_on(accept(listener, serving, stopped)));
        Ok(Self {
            url,
            state,
            first,
            _stop: stop,
        })
    }

    /// Waits for a number of requests and returns the time since the first.
    pub async fn measure(&mut self, wanted: u64) -> Result<Duration> {
        let first = self.first.wait_for(Option::is_some);
        let first = *tokio::time::timeout(Duration::from_secs(60), first)
            .await
            .context("no request arrived within a minute")??;
        let first = first.context("the time of the first request is known")?;
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let count = self.count();
            if count >= wanted {
                return Ok(first.elapsed());
            }
            if count > seen {
                (seen, since) = (count, Instant::now());
            }
            ensure!(
                since.elapsed() < Duration::from_secs(30),
                "no progress in 30 s at {count} of {wanted} requests"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.state.count.load(Ordering::Relaxed)
    }

    /// Requests with a wrong or missing signature.
    #[must_use]
    pub fn forged(&self) -> u64 {
        self.state.forged.load(Ordering::Relaxed)
    }

    /// Requests whose delivery had succeeded before.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        let ledger = lock(&self.state.ledger);
        ledger.values().map(|times| u64::from(times - 1)).sum()
    }

    #[must_use]
    pub fn stamps(&self) -> Vec<Stamp> {
        let stamps = self.state.stamps.as_ref();
        stamps.map_or_else(Vec::new, |(_, stamps)| lock(stamps).clone())
    }
}

impl State {
    /// Records a request; returns whether to answer with success.
    fn take(&self, head: &[u8], body: &[u8]) -> bool {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            self.started.send_replace(Some(Instant::now()));
        }
        if let Some((epoch, stamps)) = &self.stamps
            && let Some(due) = stamp(body)
        {
            let late = (epoch.elapsed().as_micros() as u64).saturating_sub(due);
            lock(stamps).push(Stamp { due, late });
        }
        if self
            .signer
            .as_ref()
            .is_some_and(|signer| !verified(signer, head, body))
        {
            self.forged.fetch_add(1, Ordering::Relaxed);
        }
        // Failures are spread evenly and the same in every run.
        if number * 37 % 100 < self.behaviour.fail {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        if self.behaviour.ledger
            && let Some(id) = header(head, "webhook-id")
        {
            *lock(&self.ledger).entry(id.to_owned()).or_default() += 1;
        }
        true
    }
}

/// Serves connections on a thread of its own: one busy thread costs less than two that wake each other.
async fn accept(
    listener: std::net::TcpListener,
    state: Arc<State>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files; connections that are open go on.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let state = Arc::clone(&state);
        // A broken connection is the client's concern.
        tokio::spawn(async move { serve(stream, &state).await.ok() });
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> Result<()> {
    stream.set_nodelay(true)?;
    let delay = Duration::from_millis(state.behaviour.delay);
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            read => filled += read,
        }
        while let Some((head, end)) = request(&buffer[..filled]) {
            let answer = if state.take(&buffer[..head], &buffer[head..end]) {
                ANSWER
            } else {
                FAILURE
            };
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            stream.write_all(answer).await?;
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
        ensure!(filled < buffer.len(), "a request exceeds 64 KiB");
    }
}

/// The ends of the first request's head and body, once it is complete.
fn request(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let length = header(&bytes[..head], "content-length");
    let length = length.and_then(|length| length.parse::<usize>().ok());
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some((head, end))
}

fn header<'a>(head: &'a [u8], wanted: &str) -> Option<&'a str> {
    let mut start = 0;
    memchr_iter(b'\n', head).find_map(|end| {
        let line = &head[std::mem::replace(&mut start, end + 1)..end];
        let (name, value) = line.split_at_checked(wanted.len())?;
        let value = value.strip_prefix(b":")?;
        let found = name.eq_ignore_ascii_case(wanted.as_bytes());
        found.then(|| std::str::from_utf8(value.trim_ascii()).ok())?
    })
}

fn verified(signer: &Signer, head: &[u8], body: &[u8]) -> bool {
    let (Some(id), Some(timestamp), Some(signature)) = (
        header(head, "webhook-id"),
        header(head, "webhook-timestamp").and_then(|time| time.parse().ok()),
        header(head, "webhook-signature"),
    ) else {
        return false;
    };
    signer.standard(id, timestamp, body) == signature
}

/// The microseconds after `"at":`.
fn stamp(body: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"at\":";
    let start = memmem::find(body, NAME)? + NAME.len();
    let digits = body[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    std::str::from_utf8(&body[start..start + digits.count()])
        .ok()?
        .parse()
        .ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_after_its_body() {
        let bytes = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST";
        assert_eq!(request(bytes), Some((bytes.len() - 7, bytes.len() - 4)));
        assert_eq!(request(&bytes[..bytes.len() - 5]), None);
        assert_eq!(request(b"GET / HTTP/1.1\r\n\r\n"), Some((18, 18)));
        assert_eq!(request(b"GET / HTTP"), None);
    }

    #[test]
    fn a_stamp_is_read_wherever_it_stands() {
        assert_eq!(
            stamp(b"{\"source\":\"x\",\"at\":12345,\"n\":1}"),
            Some(12_345)
        );
        assert_eq!(stamp(b"{\"at\":}"), None);
        assert_eq!(stamp(b"{}"), None);
    }

    #[tokio::test]
    async fn it_verifies_fails_and_counts_what_comes_again() {
        let secret = "the receiver's secret";
        let behaviour = Behaviour {
            secret: Some(secret.to_owned()),
            ledger: true,
            ..Behaviour::default()
        };
        let receiver = Receiver::listen("127.0.0.1:0", behaviour.clone()).await;
        let receiver = receiver.expect("a receiver");
        let signature = Signer::new(secret, Algorithm::Sha256).standard("msg_1", 7, b"{}");
        let head = format!(
            "webhook-id: msg_1\r\nwebhook-timestamp: 7\r\nwebhook-signature: {signature}\r\n"
        );
        let head = head.as_bytes();
        assert!(receiver.state.take(head, b"{}") && receiver.state.take(head, b"{}"));
        assert_eq!(
            (receiver.count(), receiver.repeats(), receiver.forged()),
            (2, 1, 0)
        );
        assert!(receiver.state.take(head, b"{} "));
        assert_eq!(receiver.forged(), 1);

        let failing = Behaviour {
            fail: 25,
            ..Behaviour::default()
        };
        let receiver = Receiver::listen("127.0.0.1:0", failing)
            .await
            .expect("a receiver");
        let failed = (0..100).filter(|_| !receiver.state.take(b"", b"")).count();
        assert_eq!(failed, 25);
    }
}
