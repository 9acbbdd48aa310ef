//! The shared puller on a real server.

use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull::Config};
use async_nats::jetstream::{AckKind, stream};
use e2e::{NatsServer, Result, SOON};
use hookline_shared::pull::{self, Chunk, Place, Puller};

const STREAM: &str = "PULLED";
const BRIEFLY: Duration = Duration::from_millis(100);
const MOST: usize = 10;

async fn start() -> Result<(tempfile::TempDir, NatsServer, Puller)> {
    let dir = tempfile::tempdir()?;
    let mut nats = NatsServer::new(dir.path())?;
    nats.start().await?;
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["pull".to_owned()],
        ..Default::default()
    };
    nats.jetstream().create_stream(config).await?;
    let puller = Puller::new(nats.client(), consumer(&nats).await?).await?;
    Ok((dir, nats, puller))
}

async fn consumer(nats: &NatsServer) -> Result<PullConsumer> {
    let config = Config {
        durable_name: Some("workers".to_owned()),
        ..Default::default()
    };
    let jetstream = nats.jetstream();
    Ok(jetstream.create_consumer_on_stream(config, STREAM).await?)
}

async fn publish(nats: &NatsServer) -> Result {
    let stored = nats.jetstream().publish("pull", "{}".into()).await?;
    stored.await?;
    Ok(())
}

async fn next(puller: &mut Puller) -> Result<Chunk> {
    Ok(tokio::time::timeout(SOON, puller.next(MOST)).await??)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_an_earlier_pull_are_received() -> Result {
    let (_dir, nats, mut puller) = start().await?;
    puller.ask(1, 0, SOON).await?;
    puller.ask(1, 0, SOON).await?;
    let mut sequences = Vec::new();
    for _ in 0..2 {
        publish(&nats).await?;
        let chunk = next(&mut puller).await?;
        assert!(!chunk.is_over);
        let places = chunk.messages.iter().filter_map(Place::of);
        sequences.extend(places.map(|place| place.stored.sequence));
    }
    assert_eq!(sequences, [1, 2]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_is_over_only_with_the_last_pull() -> Result {
    let (_dir, nats, mut puller) = start().await?;
    puller.ask(1, 0, BRIEFLY).await?;
    puller.ask(1, 0, SOON).await?;
    let chunk = next(&mut puller).await?;
    assert!(!chunk.is_over, "{chunk:?}");
    publish(&nats).await?;
    assert_eq!(next(&mut puller).await?.messages.len(), 1);

    puller.ask(1, 0, BRIEFLY).await?;
    let chunk = next(&mut puller).await?;
    assert!(chunk.is_over && chunk.error.is_none(), "{chunk:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_consumer_is_an_error() -> Result {
    let (_dir, nats, mut puller) = start().await?;
    let stream = nats.jetstream().get_stream(STREAM).await?;
    stream.delete_consumer("workers").await?;
    puller.ask(1, 0, SOON).await?;
    let chunk = next(&mut puller).await?;
    assert!(chunk.is_over && chunk.error.is_some(), "{chunk:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_given_back_comes_again_and_an_acked_one_does_not() -> Result {
    let (_dir, nats, mut puller) = start().await?;
    publish(&nats).await?;
    let mut sequences = Vec::new();
    for kind in [AckKind::Nak(None), AckKind::Ack, AckKind::Ack] {
        puller.ask(1, 0, SOON).await?;
        let chunk = next(&mut puller).await?;
        let message = &chunk.messages[0];
        sequences.extend(Place::of(message).map(|place| place.stored.sequence));
        pull::answer(nats.client(), message, kind).await?;
        // If the message is not redelivered, this one comes next.
        publish(&nats).await?;
    }
    assert_eq!(sequences, [1, 1, 2]);
    Ok(())
}
