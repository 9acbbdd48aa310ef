//! Purges the bucket of delete markers and of reservations of ids that no entity has. Otherwise the bucket would grow
//! with every change, and each start reads all of it.
//!
//! A marker is kept for a day: a node that was away for longer reads the bucket from the start (see
//! [`watch`](hookline_shared::watch)). A purge ends at the sequence that was seen, so it removes nothing that
//! was written meanwhile; a gateway that expected the marker's sequence reads the key again.

use std::time::Duration;

use async_nats::jetstream::{self, stream::LastRawMessageErrorKind, stream::Stream};
use hookline_shared::stream_reader::{self, Stored};
use hookline_shared::subject::{self, header};
use hookline_shared::watch::MARKERS_KEPT;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::redis::workers::Workers;

/// Between passes, each by one of all dispatchers.
const PERIOD: Duration = Duration::from_secs(3_600);
/// The pause after reading a few messages is this many times as long as the read.
const COST: u32 = 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct BucketPurge {
    pub(crate) context: jetstream::Context,
    pub(crate) workers: Workers,
}

impl BucketPurge {
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(PERIOD / 4).await;
            if !self.workers.turn("bucket-purge", PERIOD).await {
                continue;
            }
            match purge(&self.context, MARKERS_KEPT).await {
                Ok(0) => {}
                Ok(purged) => tracing::info!(
                    purged,
                    "purged delete markers and unused ids from the bucket"
                ),
                Err(error) => tracing::debug!(%error, "cannot purge the bucket now"),
            }
        }
    }
}

/// Purges keys that are older than `kept`. Returns their number.
async fn purge(context: &jetstream::Context, kept: Duration) -> Result<usize, BoxError> {
    let bucket = context.get_stream(subject::BUCKET_STREAM).await?;
    // By the server's clock. A bucket without changes needs no purge.
    let newest = bucket.cached_info().state.last_timestamp;
    let is_old = |stored: &Stored| {
        let written = stored.header(header::TIME_STAMP);
        let written = written.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        written.is_some_and(|written| newest - written >= kept)
    };
    let (client, mut from, mut purged) = (context.client(), 1, 0);
    loop {
        let began = Instant::now();
        let few = stream_reader::few(
            &client,
            subject::BUCKET_STREAM,
            subject::BUCKET_SUBJECTS,
            from,
        );
        let few = few.await?;
        let pause = began.elapsed() * COST;
        let Some(last) = few.last() else {
            return Ok(purged);
        };
        from = last.sequence + 1;
        for stored in few.iter().filter(|stored| is_old(stored)) {
            if is_left_over(&bucket, stored).await? {
                let purge = bucket.purge().filter(&stored.subject);
                purge.sequence(stored.sequence + 1).await?;
                purged += 1;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn is_left_over(bucket: &Stream, stored: &Stored) -> Result<bool, BoxError> {
    if stored.header(header::KV_OPERATION).is_some() {
        return Ok(true);
    }
    let Some(entities) = subject::entities_of_reserved_id(&stored.subject) else {
        return Ok(false);
    };
    // The leader answers. An entity that is created from now on reserves its id again, at a later sequence.
    match bucket.get_last_raw_message_by_subject(&entities).await {
        Ok(entity) => {
            let operation =
                hookline_shared::event::get(Some(&entity.headers), header::KV_OPERATION);
            Ok(operation.is_some())
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use async_nats::HeaderMap;
    use async_nats::jetstream::stream::Config;
    use e2e::{NatsServer, Result};
    use hookline_shared::subject::{ALL_WORKSPACES, entity_key, unique_key};

    use super::*;

    async fn put(context: &jetstream::Context, key: String, is_deleted: bool) -> Result {
        let mut headers = HeaderMap::new();
        if is_deleted {
            headers.insert(header::KV_OPERATION, "DEL");
        }
        let body = if is_deleted { "" } else { "{}" };
        let stored = context.publish_with_headers(key, headers, body.into());
        stored.await?.await?;
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn markers_and_ids_that_no_entity_has_are_purged_once_they_are_old() -> Result {
        let dir = tempfile::tempdir()?;
        let mut nats = NatsServer::new(dir.path())?;
        nats.start().await?;
        let context = nats.jetstream();
        let config = Config {
            name: subject::BUCKET_STREAM.to_owned(),
            subjects: vec![subject::BUCKET_SUBJECTS.to_owned()],
            max_messages_per_subject: 1,
            allow_direct: true,
            deny_delete: true,
            ..Config::default()
        };
        context.create_stream(config).await?;
        let entity = |id| entity_key("default", "consumers", id);
        let reserved = |id| unique_key(ALL_WORKSPACES, "consumers", "id", id);
        let name = |name| unique_key("default", "consumers", "username", name);
        for id in ["live", "deleted", "never"] {
            put(&context, reserved(id), false).await?;
        }
        put(&context, entity("live"), false).await?;
        put(&context, entity("deleted"), true).await?;
        put(&context, name("released"), true).await?;
        put(&context, name("taken"), false).await?;
        let keys = async || -> Result<BTreeSet<String>> {
            let messages = nats.messages(subject::BUCKET_STREAM).await?;
            Ok(messages
                .iter()
                .map(|message| message.subject.to_string())
                .collect())
        };

        assert_eq!(keys().await?.len(), 7);
        let purged = purge(&context, MARKERS_KEPT).await;
        assert_eq!(purged.expect("the bucket answers"), 0, "nothing is old");
        // The id of a marker that is seen later is left over already.
        let purged = purge(&context, Duration::ZERO).await;
        assert_eq!(purged.expect("the bucket answers"), 4);
        let left = [reserved("live"), entity("live"), name("taken")];
        assert_eq!(keys().await?, BTreeSet::from(left));
        Ok(())
    }
}
