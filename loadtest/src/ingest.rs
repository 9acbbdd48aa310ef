//! Events over HTTP: each on disk before it is answered, for one client and for many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::{Cluster, SOON, Sender, eventually, wire};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::question::Question;
use crate::report::{Goal, Measure, Section};
use crate::rig;

const MANY: usize = 64;
/// Times that many clients do what one does.
const TIMES: f64 = 8.0;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events of many clients per run; one client and one publisher send a tenth.
    #[arg(long, default_value_t = 40_000)]
    pub events: u64,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
}

impl Question for Options {
    const NAME: &'static str = "ingest";

    fn full() -> Self {
        Self {
            events: 200_000,
            pairs: 5,
        }
    }

    async fn run(&self) -> Result<Section> {
        measure(self).await
    }
}

#[expect(clippy::print_stdout, reason = "progress")]
async fn measure(options: &Options) -> Result<Section> {
    let cluster = Cluster::builder().dispatchers(0).start().await?;
    let sender = Sender::new(&cluster.gateways[0], &["bench"]).await?;
    let address = cluster.gateways[0].ingest().replace("http://", "");
    // Those of the token.
    eventually(SOON, "earlier events are stored", async || {
        let events = count(&cluster).await?;
        ensure!(events == 2, "{events}");
        Ok(())
    })
    .await?;
    let (mut pairs, mut publishes) = (Vec::new(), Vec::new());
    for pair in 1..=options.pairs {
        let before = count(&cluster).await?;
        let single = publish(&cluster, options.events / 10).await?;
        let one = clients(&address, &sender.token, 1, options.events / 10).await?;
        let many = clients(&address, &sender.token, MANY, options.events).await?;
        let sent = options.events + options.events / 10 * 2;
        let kept = count(&cluster).await? - before;
        ensure!(kept == sent, "{kept} of {sent} events are stored");
        println!(
            "  {pair}/{}  {many:>7.0} /s of {MANY} clients, {one:>6.0} /s of one; {single:>6.0} /s by publishes",
            options.pairs
        );
        pairs.push((many, one));
        publishes.push(single);
    }
    cluster.finish_unchecked().await?;
    let name = format!("events over HTTP, {MANY} clients / one client");
    let single = publishes.iter().sum::<f64>() / publishes.len().max(1) as f64;
    Ok(Section {
        title: "Events over HTTP: on disk before they are answered".to_owned(),
        about: "Keep-alive connections, an event of 200 bytes per request; each is synced."
            .to_owned(),
        measures: vec![
            Measure::of_pairs(&name, "/s", &pairs).goal(Goal::AtLeast(TIMES)),
            Measure::stated("JetStream publishes, one after the other", single, "/s"),
        ],
        plots: Vec::new(),
    })
}

/// Events that were ever stored.
async fn count(cluster: &Cluster) -> Result<u64> {
    let stream = cluster.nats.stream(wire::EVENTS).await?;
    Ok(stream.cached_info().state.last_sequence)
}

/// Publishes one after the other, each synced.
async fn publish(cluster: &Cluster, events: u64) -> Result<f64> {
    let context = cluster.nats.jetstream();
    let began = Instant::now();
    for number in 0..events {
        let subject = wire::event("bench", "event");
        let stored = context.publish(subject, rig::event(number).into());
        stored.await?.await?;
    }
    rig::rate(events, began.elapsed())
}

/// Clients that send one event after the other.
async fn clients(address: &str, token: &str, count: usize, events: u64) -> Result<f64> {
    let next = AtomicU64::new(0);
    let began = Instant::now();
    let clients = (0..count).map(|_| client(address, token, &next, events));
    try_join_all(clients).await?;
    rig::rate(events, began.elapsed())
}

/// As lean as can be: it shares the machine with what is measured.
async fn client(address: &str, token: &str, next: &AtomicU64, events: u64) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = vec![0; 4_096];
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= events {
            return Ok(());
        }
        let body = rig::event(number);
        let head = format!(
            "POST /events/bench/event HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), body.as_ref()].concat())
            .await?;
        let mut read = 0;
        while !is_whole(&answer[..read])? {
            let more = stream.read(&mut answer[read..]).await?;
            ensure!(more > 0, "the gateway hung up");
            read += more;
        }
        ensure!(
            answer.starts_with(b"HTTP/1.1 202 "),
            "{}",
            String::from_utf8_lossy(&answer[..read])
        );
    }
}

/// Whether an answer is there up to its last byte.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("a length")?.parse()?;
    Ok(answer.len() >= end + 4 + length)
}
