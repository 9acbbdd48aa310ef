//! An HTTP proxy that opens tunnels (CONNECT), with or without TLS of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::tls::{Authority, TlsFront, Validity};

const MAX_HEAD: usize = 8 << 10;

#[derive(Debug)]
pub struct ForwardProxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The only one that is let in, if there is one.
    login: Option<String>,
    /// Instead of a tunnel.
    refuse: Option<u16>,
    /// What tunnels were asked for.
    asked: Vec<String>,
}

impl ForwardProxy {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // A client may go at any time.
                tokio::spawn(async move { serve(client, &state).await.ok() });
            }
        });
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// TLS in front of it, for `localhost`.
    pub async fn over_tls(&self, authority: &Authority) -> Result<TlsFront> {
        authority.front(self.address.port(), Validity::Valid).await
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Lets only these credentials in, in base64, or anybody.
    pub fn require(&self, login: Option<&str>) {
        self.state.lock().login = login.map(|login| format!("Basic {login}"));
    }

    /// Answers with this status, or opens tunnels.
    pub fn refuse(&self, status: Option<u16>) {
        self.state.lock().refuse = status;
    }

    /// What tunnels were asked for, as `HOST:PORT`.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().asked.clone()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, state: &Mutex<State>) -> Result<()> {
    let head = head(&mut client).await?;
    let (request, headers) = head.split_once("\r\n").context("a request line")?;
    let mut words = request.split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    if method != Some("CONNECT") {
        return answer(&mut client, 405).await;
    }
    let (login, refuse) = {
        let mut state = state.lock();
        state.asked.push(target.to_owned());
        (state.login.clone(), state.refuse)
    };
    let mut headers = headers.lines().filter_map(|line| line.split_once(": "));
    let given = headers.find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
    if login.is_some_and(|login| given.is_none_or(|(_, given)| given != login)) {
        return answer(&mut client, 407).await;
    }
    if let Some(status) = refuse {
        return answer(&mut client, status).await;
    }
    let Ok(mut receiver) = TcpStream::connect(target).await else {
        return answer(&mut client, 502).await;
    };
    answer(&mut client, 200).await?;
    tokio::io::copy_bidirectional(&mut client, &mut receiver).await?;
    Ok(())
}

async fn head(client: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD {
            bail!("a long head");
        }
        head.push(client.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}

async fn answer(client: &mut (impl AsyncWrite + Unpin), status: u16) -> Result<()> {
    let head = format!("HTTP/1.1 {status} As asked\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    Ok(())
}
