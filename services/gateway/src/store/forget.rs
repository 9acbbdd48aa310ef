//! Removes what belonged to a deleted hook: its waiting deliveries and its dead letters.

use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use hookline_shared::subject;

use super::Store;
use super::error::Error;
use super::read::is_deleted;

/// The server goes through all messages of the hook. Dispatchers sweep what is left.
const PATIENCE: Duration = Duration::from_secs(3);

impl Store {
    /// Removes what is stored under the id of a hook, unless a hook of any workspace has it. Later deliveries may be those of a new one.
    pub(crate) async fn forget_hook(&self, id: &str) -> Result<(), Error> {
        let deliveries = self.newest_of(subject::DELIVERIES_STREAM).await?;
        let dead = self.newest_of(subject::DEAD_STREAM).await?;
        let anywhere = subject::entity_in_any_workspace(subject::HOOK_KIND, id);
        let last = self.last_message(&anywhere).await?;
        if last.is_some_and(|last| !is_deleted(&last)) {
            return Ok(());
        }
        let filters = [subject::deliveries_of(id), subject::dead_of(id)];
        for ((stream, last), filter) in [deliveries, dead].into_iter().zip(filters) {
            let purge = stream.purge().filter(&filter).sequence(last + 1);
            match tokio::time::timeout(PATIENCE, purge.into_future()).await {
                Ok(Ok(purged)) if purged.purged > 0 => {
                    let count = purged.purged;
                    tracing::info!(
                        hook = id,
                        filter,
                        count,
                        "removed what was left of a deleted hook"
                    );
                }
                Ok(Err(error)) => return Err(Error::Unavailable(Some(error.into()))),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// A stream, and the sequence of its last message.
    pub(crate) async fn newest_of(&self, name: &str) -> Result<(Stream<()>, u64), Error> {
        let unavailable = |error: async_nats::Error| Error::Unavailable(Some(error));
        let stream = self.stream(name).await?;
        let info = stream
            .get_info()
            .await
            .map_err(|error| unavailable(error.into()))?;
        Ok((stream, info.state.last_sequence))
    }
}
