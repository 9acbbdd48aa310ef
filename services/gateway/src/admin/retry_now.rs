//! Attempts waiting deliveries at once, whatever their schedules and the hook's circuit say.

use axum::http::Uri;
use axum::response::Response;
use futures::future::try_join_all;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use hookline_shared::stream_reader::Stored;
use hookline_shared::subject::{self, header};
use hookline_shared::{batch, clock};

use super::collections::Collection;
use super::deliveries::page;
use super::replay::selected;
use super::response;
use super::selection::Selection;
use crate::error::ApiError;
use crate::schema::Input;
use crate::store::{self, Store};

const BATCH: usize = 500;

impl Collection<'_> {
    /// `POST /event-hooks/{id}/deliveries/retry`: the selected waiting deliveries are due now, or are counted
    /// (`dry_run`). An open circuit lets the first of them probe.
    pub(super) async fn retry_now(
        &self,
        key: &str,
        input: Input,
        uri: &Uri,
    ) -> Result<Response, ApiError> {
        let hook = self.find(key).await?;
        let selection = Selection::read(&input.values, uri.query().unwrap_or_default())?;
        let filter = match &selection.id {
            Some(id) => subject::wait_subject(&hook.id, id),
            None => subject::waits_of(&hook.id),
        };
        let stream = subject::DELIVERIES_STREAM;
        if selection.dry_run {
            let selected = selected(self.store, stream, &filter, &selection).await?;
            return Ok(response::ok(&json!({ "selected": selected })));
        }
        if hook
            .entity
            .get("delivery")
            .is_some_and(|delivery| delivery["paused"] == true)
        {
            return Err(ApiError::BadRequest(
                "the hook is paused: set delivery.paused to false, and its deliveries are made",
            ));
        }
        if self.store.is_storage_scarce().await {
            return Err(ApiError::StorageScarce);
        }
        // Those that are parked again meanwhile follow.
        let (_, last) = self.store.newest_of(stream).await?;
        let (mut retried, mut from, now) = (0, 1, clock::now_utc());
        while from <= last {
            let page = page(self.store, stream, &filter, from, BATCH).await?;
            let Some(end) = page.last() else { break };
            from = end.sequence + 1;
            let wanted = page
                .iter()
                .filter(|waiting| waiting.sequence <= last && selection.holds(waiting));
            let moved = try_join_all(wanted.map(|waiting| due(self.store, waiting, now))).await?;
            retried += moved.into_iter().filter(|moved| *moved).count();
        }
        if selection.id.is_some() && retried == 0 {
            return Err(ApiError::NotFound);
        }
        Ok(response::ok(&json!({ "retried": retried })))
    }
}

/// False: it is not waiting any longer.
async fn due(store: &Store, waiting: &Stored, now: OffsetDateTime) -> Result<bool, ApiError> {
    let Some((hook, delivery)) = subject::parse_wait_subject(&waiting.subject) else {
        return Ok(false);
    };
    let due = now.format(&Rfc3339).map_err(|_| ApiError::Internal)?;
    let asked_for = now.unix_timestamp_nanos() / 1_000_000;
    let mut message = batch::Message::new(waiting.subject.clone(), waiting.payload.clone());
    // A place in the rate limit is for another time.
    for name in header::PARKED
        .into_iter()
        .filter(|name| *name != header::RESERVED)
    {
        if let Some(value) = waiting.header(name) {
            message = message.header(name, value);
        }
    }
    let message = message
        .header(header::ASKED_FOR, asked_for.to_string())
        .header(header::SCHEDULE, format!("@at {due}"))
        .header(
            header::SCHEDULE_TARGET,
            subject::due_subject(hook, delivery),
        )
        .expect_last(waiting.sequence);
    match store.deliveries().commit(vec![message]).await {
        Ok(_) => Ok(true),
        Err(batch::Error::Conflict) => Ok(false),
        Err(error) => Err(store::Error::from(error).into()),
    }
}
