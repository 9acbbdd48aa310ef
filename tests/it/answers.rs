//! Receivers whose answers break off, never end, or do not come because a kept connection was closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Result, SOON, admin, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What follows the bytes of an answer.
#[derive(Debug, Clone, Copy)]
enum Then {
    Close,
    /// More and more of the body, without end.
    Trickle,
    /// The next request is read, and the connection closed without an answer.
    CloseAtNext,
}

/// Gives one answer to each request.
struct Receiver {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start(answer: &'static [u8], then: Then) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move { serve(stream, answer, then, &count).await.ok() });
            }
        });
        Ok(Self { url, requests })
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, answer: &[u8], then: Then, requests: &AtomicUsize) -> Result {
    request(&mut stream).await?;
    requests.fetch_add(1, Ordering::Relaxed);
    stream.write_all(answer).await?;
    match then {
        Then::Close => {}
        Then::Trickle => loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.write_all(b"1\r\nx\r\n").await?;
        },
        Then::CloseAtNext => {
            request(&mut stream).await?;
            requests.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Reads a request, and returns its head.
async fn request(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    loop {
        let read = stream.read_buf(&mut bytes).await?;
        ensure!(read > 0, "the client left");
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok(head.to_owned());
            }
        }
    }
}

/// A hook that hears one event, and the newest entry of its delivery log.
async fn hook(cluster: &Cluster, name: &str, url: &str) -> Result<String> {
    let config = json!({ "url": url, "method": "POST", "body": "{{ n }}" });
    let hook = admin::hook("crud", name, "webhook-custom", config);
    let hook = cluster.admin().create_hook(&hook).await?;
    Ok(admin::id(&hook)?.to_owned())
}

async fn attempts(cluster: &Cluster, hook: &str, count: usize) -> Result<Vec<Value>> {
    eventually(SOON, "attempts are logged", async || {
        let path = format!("/event-hooks/{hook}/attempts");
        let listed = cluster.admin().get(&path).await?.expect(200)?;
        let attempts = listed["data"].as_array().context("a list")?.clone();
        ensure!(attempts.len() >= count, "{attempts:?}");
        Ok(attempts)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_decides_whatever_becomes_of_the_body() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_TIMEOUT", "3s")
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1h")
        .start()
        .await?;
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n7 bytes";
    let chunked = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n";
    let garbled = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let failed = b"HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\n7 bytes";
    let slowly = b"HTTP/1.1 503 Oh\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases: [(&'static [u8], Then, u16); 5] = [
        (short, Then::Close, 200),
        (chunked, Then::Trickle, 201),
        (garbled, Then::Close, 202),
        (failed, Then::Close, 500),
        (slowly, Then::Trickle, 503),
    ];
    for (number, (answer, then, status)) in cases.into_iter().enumerate() {
        let receiver = Receiver::start(answer, then).await?;
        let name = format!("case-{number}");
        let hook = hook(&cluster, &name, &receiver.url).await?;
        cluster.publish("crud", &name, &json!({ "n": 1 })).await?;
        let logged = attempts(&cluster, &hook, 1).await?;
        assert_eq!(logged[0]["status"], status, "{logged:?}");
        assert_eq!(logged[0]["error"].is_null(), status < 300, "{logged:?}");
        assert_eq!((logged.len(), receiver.requests()), (1, 1), "{name}");
    }
    let leftovers = e2e::Leftovers { dead: 0, parked: 2 };
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_that_was_closed_costs_no_attempt() -> Result {
    let cluster = Cluster::single().await?;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let receiver = Receiver::start(answer, Then::CloseAtNext).await?;
    let hook = hook(&cluster, "consumers", &receiver.url).await?;
    for number in 1..=4_usize {
        cluster
            .publish("crud", "consumers", &json!({ "n": number }))
            .await?;
        let logged = attempts(&cluster, &hook, number).await?;
        for attempt in &logged {
            assert_eq!(attempt["attempt"], 1, "{logged:?}");
            assert_eq!(attempt["status"], 200, "{logged:?}");
        }
    }
    // Each but the first was sent over a kept connection as well, in vain, unless that took long.
    let requests = receiver.requests();
    assert!((5..=7).contains(&requests), "{requests}");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_answers_nothing_fails_the_attempt() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_RETRY_SCHEDULE", "1h")
        .start()
        .await?;
    let receiver = Receiver::start(b"", Then::Close).await?;
    let hook = hook(&cluster, "consumers", &receiver.url).await?;
    cluster.publish("crud", "consumers", &json!({})).await?;
    let logged = attempts(&cluster, &hook, 1).await?;
    assert!(logged[0]["status"].is_null() && logged[0]["error"].is_string());
    assert_eq!(receiver.requests(), 2, "one immediate try more");
    let leftovers = e2e::Leftovers { dead: 0, parked: 1 };
    cluster.finish_leaving(leftovers).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_content_says_so() -> Result {
    let cluster = Cluster::single().await?;
    for method in ["POST", "PUT", "PATCH", "GET", "DELETE"] {
        let path = format!("/{method}");
        let config = json!({ "url": cluster.receiver.url(&path), "method": method });
        let hook = admin::hook("crud", "consumers", "webhook-custom", config);
        cluster.admin().create_hook(&hook).await?;
    }
    cluster.publish("crud", "consumers", &json!({})).await?;
    for method in ["POST", "PUT", "PATCH", "GET", "DELETE"] {
        let request = cluster.receiver.wait_for_one(&format!("/{method}")).await?;
        let expected = match method {
            "POST" | "PUT" | "PATCH" => "0",
            _ => "",
        };
        assert_eq!(request.header("content-length"), expected, "{method}");
        assert_eq!(request.text(), "");
    }
    cluster.finish().await
}
