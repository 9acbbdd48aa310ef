//! Pauses a hook whose receiver is gone for good, by a guarded write to the hook.

use async_nats::jetstream;
use hookline_shared::batch::{self, Message, Writer};
use hookline_shared::event;
use hookline_shared::subject::{self, HOOK_KIND, HOOKS_REVISION, header};
use serde_json::{Value, json};

/// Writes of one hook, if others change it at the same time.
const TRIES: usize = 5;

#[derive(Clone)]
pub(crate) struct Pauser {
    context: jetstream::Context,
    bucket: Writer,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read the hook: {0}")]
    Read(#[from] async_nats::Error),
    #[error("the hook is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot write the hook: {0}")]
    Write(#[from] batch::Error),
}

impl Pauser {
    #[must_use]
    pub(crate) fn new(context: jetstream::Context, bucket: Writer) -> Self {
        Self { context, bucket }
    }

    /// Sets `delivery.paused` and the reason. Failure is only logged: the hook's next delivery tries again.
    pub(crate) async fn pause(&self, workspace: &str, hook: &str, reason: &str) {
        for _ in 0..TRIES {
            match self.try_pause(workspace, hook, reason).await {
                Ok(()) => {
                    tracing::warn!(hook, reason, "hook paused");
                    return;
                }
                Err(Error::Write(batch::Error::Conflict)) => {}
                Err(error) => {
                    tracing::error!(hook, %error, "cannot pause the hook");
                    return;
                }
            }
        }
        tracing::error!(hook, "cannot pause the hook, it keeps changing");
    }

    async fn try_pause(&self, workspace: &str, hook: &str, reason: &str) -> Result<(), Error> {
        let key = subject::entity_key(workspace, HOOK_KIND, hook);
        let bucket = self
            .context
            .get_stream_no_info(subject::BUCKET_STREAM)
            .await;
        let bucket = bucket.map_err(async_nats::Error::from)?;
        let stored = bucket.get_last_raw_message_by_subject(&key).await;
        let stored = stored.map_err(async_nats::Error::from)?;
        if event::get(Some(&stored.headers), header::KV_OPERATION).is_some() {
            return Ok(());
        }
        let mut entity: Value = serde_json::from_slice(&stored.payload)?;
        if !entity["delivery"].is_object() {
            entity["delivery"] = json!({});
        }
        if entity["delivery"]["paused"] == Value::Bool(true) {
            return Ok(());
        }
        entity["delivery"]["paused"] = true.into();
        entity["delivery"]["paused_reason"] = reason.into();
        let first = (stored.sequence, stored.time.unix_timestamp_nanos());
        let created = event::get(Some(&stored.headers), header::CREATED)
            .map_or_else(|| format!("{} {}", first.0, first.1), str::to_owned);
        let write = vec![
            Message::new(key, entity.to_string())
                .header(header::CREATED, created)
                .expect_last(stored.sequence),
            Message::new(HOOKS_REVISION, hook.to_owned()).repeatable(),
        ];
        self.bucket.commit(write).await?;
        Ok(())
    }
}
