//! The bare pipe: JetStream pull, HTTP POST, ack, and nothing else. What every ratio is made with.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream::{self, consumer::pull};
use futures::StreamExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// The stream that the bare pipe works on.
pub const STREAM: &str = "LIMIT";
/// Its subject.
pub const SUBJECT: &str = "limit.events";

/// Creates the stream, with the settings of Hookline's own.
pub async fn create_stream(context: &jetstream::Context) -> Result<()> {
    let config = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        ..Default::default()
    };
    context.get_or_create_stream(config).await?;
    Ok(())
}

/// Runs the pipe until the handle is dropped.
pub async fn start(nats: &str, url: &str, concurrency: usize) -> Result<AbortOnDrop> {
    let context = jetstream::new(async_nats::connect(nats).await?);
    let config = pull::Config {
        durable_name: Some("limit".to_owned()),
        max_ack_pending: 100_000,
        ..Default::default()
    };
    let consumer = context.create_consumer_on_stream(config, STREAM).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (permits, url) = (Arc::new(Semaphore::new(concurrency)), url.to_owned());
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(512)
        .messages()
        .await?;
    let task = tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let Ok(message) = message else { continue };
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let post = client.post(url).timeout(Duration::from_secs(15));
                if post.body(message.payload.clone()).send().await.is_ok() {
                    let _ = message.ack().await;
                }
            });
        }
    });
    Ok(AbortOnDrop(task))
}

/// Ends a task when it is dropped.
pub struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
