//! Looking at parked deliveries.

use async_nats::jetstream::{self, stream::LastRawMessageErrorKind};
use hookline_shared::batch;
use hookline_shared::event;
use hookline_shared::scan;
use hookline_shared::subject::{self, header};

/// What is known of a delivery that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Where it stands in the stream.
    pub sequence: u64,
    /// The attempt that it waits for.
    pub attempt: u32,
}

/// The stream of parked deliveries.
#[derive(Debug, Clone)]
pub struct Parked(jetstream::Context);

impl Parked {
    /// The stream as this connection sees it.
    #[must_use]
    pub fn new(context: jetstream::Context) -> Self {
        Self(context)
    }

    /// How many deliveries of a hook wait.
    ///
    /// # Errors
    /// [`batch::Error::Unavailable`] if the stream does not answer.
    pub async fn count(&self, hook: &str) -> Result<u64, batch::Error> {
        let waits = subject::waits_of(hook);
        let count = scan::count(&self.0.client(), subject::DELIVERIES_STREAM, &waits).await;
        count.map_err(|_| batch::Error::Unavailable)
    }

    /// What waits under a subject.
    ///
    /// # Errors
    /// [`batch::Error::Unavailable`] if the stream does not answer.
    pub async fn last(&self, wait: &str) -> Result<Option<Waiting>, batch::Error> {
        let unavailable = batch::Error::Unavailable;
        let stream = self.0.get_stream_no_info(subject::DELIVERIES_STREAM).await;
        let stream = stream.map_err(|_| unavailable.clone())?;
        match stream.get_last_raw_message_by_subject(wait).await {
            Ok(message) => {
                let attempt = event::get(Some(&message.headers), header::ATTEMPT);
                Ok(Some(Waiting {
                    sequence: message.sequence,
                    attempt: attempt.and_then(|text| text.parse().ok()).unwrap_or(0),
                }))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(_) => Err(unavailable),
        }
    }
}
