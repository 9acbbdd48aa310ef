//! A TCP proxy that can cut the wire: connections stay open, but nothing passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: Arc<AtomicU16>,
    open: watch::Sender<bool>,
    arrived: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy without a target.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = Arc::new(AtomicU16::new(0));
        let arrived = Arc::new(AtomicU64::new(0));
        let passed = Arc::new(AtomicU64::new(0));
        let (open, opened) = watch::channel(true);
        let leads = Arc::clone(&target);
        let counters = [Arc::clone(&arrived), Arc::clone(&passed)];
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let port = leads.load(Ordering::Relaxed);
                let (opened, counters) = (opened.clone(), counters.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                        join(client, server, &opened, &counters).await;
                    }
                });
            }
        });
        Ok(Self {
            address,
            target,
            open,
            arrived,
            passed,
            task,
        })
    }

    /// Sets the target of new connections to a local port.
    pub fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::Relaxed);
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds back everything, in both directions.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Passes on what was held back, and everything after.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }

    /// Bytes passed on so far.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Bytes held back now.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        let passed = self.passed();
        self.arrived.load(Ordering::Relaxed).saturating_sub(passed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn join(
    client: TcpStream,
    server: TcpStream,
    opened: &watch::Receiver<bool>,
    counters: &[Arc<AtomicU64>; 2],
) {
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = copy(from_client, to_server, opened.clone(), counters) => {}
        () = copy(from_server, to_client, opened.clone(), counters) => {}
    }
}

async fn copy(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut opened: watch::Receiver<bool>,
    [arrived, passed]: &[Arc<AtomicU64>; 2],
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        arrived.fetch_add(read as u64, Ordering::Relaxed);
        if opened.wait_for(|open| *open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        passed.fetch_add(read as u64, Ordering::Relaxed);
    }
}
