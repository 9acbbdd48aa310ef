//! Connections to the Admin port, and requests that pages of other sites make.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Result, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A generous time for connections to be closed.
const LONG: Duration = Duration::from_secs(90);

fn address(cluster: &Cluster) -> Result<String> {
    let base = cluster.admin().base();
    Ok(base
        .strip_prefix("http://")
        .context("a URL")?
        .trim_end_matches('/')
        .to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_and_idle_connections_are_closed_and_keep_nobody_out() -> Result {
    let cluster = Cluster::single().await?;
    let address = address(&cluster)?;
    let starts: [&[u8]; 5] = [
        b"",
        b"GET /status HT",
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nX-",
        b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /consumers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ];
    let mut open = Vec::new();
    for number in 0..600 {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(starts[number % starts.len()]).await?;
        open.push(tokio::spawn(async move {
            stream.read_to_end(&mut Vec::new()).await
        }));
    }
    cluster.admin().create_consumer("meanwhile").await?;
    eventually(LONG, "all connections are closed", async || {
        let left = open.iter().filter(|stream| !stream.is_finished()).count();
        ensure!(left == 0, "{left} are open");
        Ok(())
    })
    .await?;
    cluster.finish().await
}

/// The status of a request with these header lines.
async fn status(address: &str, method: &str, path: &str, headers: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let body = "source=crud&handler=log";
    let form = "Content-Type: application/x-www-form-urlencoded";
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{headers}{form}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).context("a status line")?;
    Ok(status.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_change_and_read_nothing() -> Result {
    let cluster = Cluster::single().await?;
    let admin = address(&cluster)?;
    let own = format!("Host: {admin}\r\n");
    for (headers, expected) in [
        (own.clone(), 201),
        (format!("{own}Origin: http://{admin}\r\n"), 201),
        (format!("{own}Origin: https://evil.example\r\n"), 403),
        (format!("{own}Origin: null\r\n"), 403),
        (format!("{own}Sec-Fetch-Site: cross-site\r\n"), 403),
        (format!("{own}Sec-Fetch-Site: same-origin\r\n"), 201),
        ("Host: evil.example\r\n".to_owned(), 403),
        (
            "Host: localhost.evil.example\r\nOrigin: http://localhost.evil.example\r\n".to_owned(),
            403,
        ),
    ] {
        let answered = status(&admin, "POST", "/event-hooks", &headers).await?;
        assert_eq!(answered, expected, "{headers}");
    }
    assert_eq!(cluster.admin().list("/event-hooks").await?.len(), 3);
    assert_eq!(
        status(&admin, "GET", "/event-hooks", "Host: evil.example\r\n").await?,
        403
    );
    let port = cluster.gateways[0].status_address();
    assert_eq!(
        status(port, "GET", "/metrics", "Host: evil.example\r\n").await?,
        403
    );
    assert_eq!(
        status(port, "GET", "/metrics", "Host: localhost\r\n").await?,
        200
    );
    cluster.finish().await
}
