//! Replay: parks dead letters for an immediate attempt, within the bounds that dispatchers keep.

use axum::http::Uri;
use axum::response::Response;
use futures::future::try_join_all;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use hookline_shared::stream_reader::{self, Stored};
use hookline_shared::subject::{self, header};
use hookline_shared::{batch, clock};

use super::collections::Collection;
use super::deliveries::page;
use super::response;
use super::selection::Selection;
use crate::error::ApiError;
use crate::schema::Input;
use crate::store::{self, Store};

/// Letters that are replayed between two looks at the bounds.
const BATCH: u64 = 500;

impl Collection<'_> {
    /// `POST /event-hooks/{id}/dead/replay`: parks the selected dead letters for an immediate attempt, or counts them
    /// (`dry_run`). Each restarts its retry schedule. Stops where no more deliveries may wait.
    pub(super) async fn replay(
        &self,
        key: &str,
        input: Input,
        uri: &Uri,
    ) -> Result<Response, ApiError> {
        let hook = self.find(key).await?;
        let selection = Selection::read(&input.values, uri.query().unwrap_or_default())?;
        let filter = match &selection.id {
            Some(id) => subject::dead_subject(&hook.id, id),
            None => subject::dead_of(&hook.id),
        };
        if selection.dry_run {
            let selected = selected(self.store, subject::DEAD_STREAM, &filter, &selection).await?;
            return Ok(response::ok(&json!({ "selected": selected })));
        }
        let (mut replayed, mut from, mut left) = (0, 1, 0);
        loop {
            left = match room(self.store, &hook.id, left).await {
                Ok(left) => left,
                Err(full) if replayed > 0 => {
                    let message = format!("stopped: {full}");
                    let body = json!({ "replayed": replayed, "message": message });
                    return Ok(response::ok(&body));
                }
                Err(full) => return Err(full),
            };
            let (stream, size) = (subject::DEAD_STREAM, left.min(BATCH) as usize);
            let page = page(self.store, stream, &filter, from, size).await?;
            let Some(last) = page.last() else { break };
            from = last.sequence + 1;
            let own = |letter: &Stored| {
                let incarnation = letter.header(header::INCARNATION);
                incarnation.is_none_or(|one| one == "0" || one == hook.incarnation())
            };
            let wanted = page
                .iter()
                .filter(|letter| own(letter) && selection.holds(letter));
            let replays = wanted.map(|letter| replay(self.store, &hook.id, letter));
            let parked = try_join_all(replays).await?.len();
            replayed += parked;
            left -= parked as u64;
        }
        if selection.id.is_some() && replayed == 0 {
            return Err(ApiError::NotFound);
        }
        Ok(response::ok(&json!({ "replayed": replayed })))
    }
}

/// How many messages under `filter` are selected.
pub(super) async fn selected(
    store: &Store,
    stream: &str,
    filter: &str,
    selection: &Selection,
) -> Result<usize, ApiError> {
    let (mut selected, mut from) = (0, 1);
    loop {
        let page = page(store, stream, filter, from, BATCH as usize).await?;
        let Some(last) = page.last() else {
            return Ok(selected);
        };
        from = last.sequence + 1;
        selected += page.iter().filter(|letter| selection.holds(letter)).count();
    }
}

/// How many more deliveries of a hook may wait, at least one. The server goes through all of a hook's to count
/// them, so they are counted only once none is left of the last count.
async fn room(store: &Store, hook: &str, left: u64) -> Result<u64, ApiError> {
    if store.is_storage_scarce().await {
        return Err(ApiError::StorageScarce);
    }
    if left > 0 {
        return Ok(left);
    }
    let waits = subject::waits_of(hook);
    let waiting = stream_reader::count(store.client(), subject::DELIVERIES_STREAM, &waits).await;
    let waiting = waiting.map_err(store::Error::from)?;
    match store.hook_backlog().saturating_sub(waiting) {
        0 => Err(ApiError::BacklogFull(waiting)),
        room => Ok(room),
    }
}

/// Parks a dead letter for an immediate attempt, then deletes the letter. If that is interrupted, the
/// delivery is both waiting and dead, and another replay only deletes the letter.
async fn replay(store: &Store, hook: &str, letter: &Stored) -> Result<(), ApiError> {
    let delivery = letter.subject.rsplit('.').next().unwrap_or_default();
    let attempts = letter.header(header::ATTEMPT);
    let attempts: u32 = attempts.and_then(|n| n.parse().ok()).unwrap_or(0);
    let now = clock::now_utc();
    let due = now.format(&Rfc3339).map_err(|_| ApiError::Internal)?;
    let wait = subject::wait_subject(hook, delivery);
    let mut message = batch::Message::new(wait, letter.payload.clone());
    for name in header::KEPT {
        if let Some(value) = letter.header(name) {
            message = message.header(name, value);
        }
    }
    let message = message
        .header(header::ATTEMPT, (attempts + 1).to_string())
        .header(header::ATTEMPTS_BEFORE, attempts.to_string())
        .header(
            header::FIRST_ATTEMPT,
            (now.unix_timestamp_nanos() / 1_000_000).to_string(),
        )
        .header(header::REASON, "replayed")
        .header(header::SCHEDULE, format!("@at {due}"))
        .header(
            header::SCHEDULE_TARGET,
            subject::due_subject(hook, delivery),
        )
        .expect_last(0);
    match store.deliveries().commit(vec![message]).await {
        // Already parked by a replay that was interrupted.
        Ok(_) | Err(batch::Error::Conflict) => {}
        Err(error) => return Err(store::Error::from(error).into()),
    }
    let stream = store.stream(subject::DEAD_STREAM).await?;
    // If it fails, the letter stays, or was deleted concurrently.
    let _ = stream.delete_message(letter.sequence).await;
    Ok(())
}
