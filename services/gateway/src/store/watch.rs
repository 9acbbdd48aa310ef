//! Applies changes of the bucket to the view.

use std::time::Duration;

use async_nats::jetstream;

use hookline_shared::subject::{ENTITY_SUBJECTS, HOOKS_REVISION, parse_entity_key};
use hookline_shared::watch::{self, Change, Update};

use super::row::{self, Row};
use super::view::View;
use crate::schema::Schema;

/// Minimum age of a watch before it is restarted because a write did not appear.
const MIN_AGE: Duration = Duration::from_secs(10);

/// Follows the bucket's entities. The watch is restarted when a write does not appear in it for a while,
/// whatever the reason. Ends if it was away for so long that the bucket must be read from the start.
pub(crate) async fn follow(view: &View, context: &jetstream::Context) {
    loop {
        tokio::select! {
            away = watch::follow(context, ENTITY_SUBJECTS, |update| match update {
                Update::Change(change) => apply(view, change),
                Update::Missing => view.bucket_is_missing(),
                Update::Replaced => view.clear(),
            }) => {
                return tracing::error!("{away}");
            }
            () = lagging(view) => tracing::warn!("a write did not appear in the view, restarting the watch"),
        }
    }
}

async fn lagging(view: &View) {
    tokio::time::sleep(MIN_AGE).await;
    view.lagging.notified().await;
}

fn apply(view: &View, change: Change) {
    if change.subject == HOOKS_REVISION {
        return view.advance(change.sequence);
    }
    let known = parse_entity_key(&change.subject)
        .and_then(|(workspace, kind, id)| Some((workspace, Schema::by_kind(&kind)?, id)));
    let Some((workspace, schema, id)) = known else {
        // A kind of a newer version: this node does not serve it.
        return view.advance(change.sequence);
    };
    let Some(body) = &change.value else {
        return view.remove(schema, &workspace, &id, change.sequence);
    };
    let message = row::Message {
        sequence: change.sequence,
        time: change.time,
        headers: change.headers.as_ref(),
        body,
    };
    match Row::read(schema, &workspace, &id, &message) {
        Some(row) => view.put(row),
        None => {
            tracing::error!(
                kind = schema.kind,
                id,
                "cannot read an entity in the bucket"
            );
            view.advance(change.sequence);
        }
    }
}
