//! A connection to NATS that sends what no client library would, and shows what the server answers.

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;

use crate::nats::password;
use crate::secrets::Secrets;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Stream for S {}

#[derive(Debug)]
pub struct RawNats {
    stream: BufReader<Box<dyn Stream>>,
    inbox: String,
}

impl RawNats {
    /// As a user of the shipped accounts.
    pub async fn connect(port: u16, user: &str) -> Result<Self> {
        let stream = Self::greeted(port).await?;
        Self::log_in(Box::new(stream), user, &password(user)).await
    }

    /// As a user of a server with the configuration for production.
    pub async fn connect_securely(port: u16, user: &str, secrets: &Secrets) -> Result<Self> {
        let stream = Self::greeted(port).await?;
        let connector = secrets.connector()?;
        let stream = connector.connect("localhost".try_into()?, stream).await?;
        Self::log_in(Box::new(stream), user, &secrets.nats_password(user)).await
    }

    /// A connection whose first line from the server is read, not a byte more.
    async fn greeted(port: u16) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        while stream.read_u8().await? != b'\n' {}
        Ok(stream)
    }

    async fn log_in(stream: Box<dyn Stream>, user: &str, password: &str) -> Result<Self> {
        let mut raw = Self {
            stream: BufReader::new(stream),
            inbox: format!("_INBOX.{user}.raw"),
        };
        let login = json!({
            "verbose": false, "headers": true, "user": user, "pass": password,
        });
        let hello = format!("CONNECT {login}\r\nSUB {} 1\r\n", raw.inbox);
        raw.send(hello.as_bytes()).await?;
        Ok(raw)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes).await?;
        Ok(stream.flush().await?)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line).await?;
        ensure!(read > 0, "the server hung up");
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Publishes, and waits for the stream's acknowledgement.
    pub async fn publish(&mut self, subject: &[u8], headers: &[u8], body: &[u8]) -> Result<()> {
        let sizes = format!(
            " {} {} {}\r\n",
            self.inbox,
            headers.len(),
            headers.len() + body.len()
        );
        let message = [b"HPUB ", subject, sizes.as_bytes(), headers, body, b"\r\n"].concat();
        self.send(&message).await?;
        loop {
            let line = self.line().await?;
            if line.starts_with("PING") {
                self.send(b"PONG\r\n").await?;
            } else if line.starts_with("MSG") {
                let answer = self.line().await?;
                ensure!(answer.contains("\"seq\""), "{answer}");
                return Ok(());
            } else {
                ensure!(!line.starts_with("-ERR"), "{line}");
            }
        }
    }

    /// Whether the server lets the user publish `{}` to a subject, with a subject for the answer.
    pub async fn may_publish(&mut self, subject: &str, reply: &str) -> Result<bool> {
        self.may(&format!("PUB {subject} {reply} 2\r\n{{}}\r\n"))
            .await
    }

    pub async fn may_subscribe(&mut self, subject: &str) -> Result<bool> {
        self.may(&format!("SUB {subject} 2\r\nUNSUB 2\r\n")).await
    }

    /// The server answers in order: at its PONG it has handled what came before the PING.
    async fn may(&mut self, command: &str) -> Result<bool> {
        self.send(format!("{command}PING\r\n").as_bytes()).await?;
        let mut allowed = true;
        loop {
            let line = self.line().await?;
            if line.starts_with("-ERR") {
                ensure!(line.contains("Permissions Violation"), "{line}");
                allowed = false;
            } else if line.starts_with("PING") {
                self.send(b"PONG\r\n").await?;
            } else if line.starts_with("PONG") {
                return Ok(allowed);
            }
        }
    }
}
