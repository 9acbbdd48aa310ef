//! Publishes an event that is no change of an entity.

use bytes::Bytes;
use hookline_shared::batch;

use super::Store;
use super::error::Error;

impl Store {
    /// Publishes through the outbox, like any other event of a gateway. An event with the same id may be there already.
    pub(crate) async fn publish(
        &self,
        id: &str,
        names: (&str, &str, &str),
        data: Bytes,
    ) -> Result<(), Error> {
        if self.backlog.is_full() {
            return Err(Error::Full);
        }
        let (entry, sent) = self.origin.event(id, names, data);
        if entry.size() > self.max_event() {
            return Err(Error::TooLarge);
        }
        self.connected().await?;
        let subject = entry.subject().to_owned();
        match self.writer.commit(vec![entry]).await {
            Ok(_) => Ok(()),
            // Ids are unique within a workspace, which the server does not know.
            Err(batch::Error::DuplicateId) => match self.last_message(&subject).await? {
                Some(_) => Ok(()),
                None => Err(Error::Contended),
            },
            Err(error) => {
                sent.failed();
                Err(error.into())
            }
        }
    }
}
