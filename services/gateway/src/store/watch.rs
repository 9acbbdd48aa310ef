//! Keeps the view up to date.

use std::time::Duration;

use async_nats::jetstream;

use hookline_shared::subject::{ENTITY_SUBJECTS, HOOKS_REVISION, parse_entity_key};
use hookline_shared::watch::{self, Change};

use super::row::{self, Row};
use super::view::View;
use crate::schema::Schema;

/// A watch gets this long before it is given up because a write did not show.
const PATIENCE: Duration = Duration::from_secs(10);

/// Follows the bucket's entities for ever. The watch is set up anew when a write does not show in
/// it for a while, whatever the reason.
pub(crate) async fn follow(view: &View, context: &jetstream::Context) {
    loop {
        tokio::select! {
            never = watch::follow(context, ENTITY_SUBJECTS, |change| apply(view, change)) => match never {},
            () = lagging(view) => tracing::warn!("a write does not show, the watch is set up again"),
        }
    }
}

async fn lagging(view: &View) {
    tokio::time::sleep(PATIENCE).await;
    view.lagging.notified().await;
}

fn apply(view: &View, change: Change) {
    if change.subject == HOOKS_REVISION {
        return view.advance(change.sequence);
    }
    let known = parse_entity_key(&change.subject)
        .and_then(|(workspace, kind, id)| Some((workspace, Schema::by_kind(&kind)?, id)));
    let Some((workspace, schema, id)) = known else {
        // A kind of a newer version: not for this node to show, but seen.
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
                "an entity in the bucket cannot be read"
            );
            view.advance(change.sequence);
        }
    }
}
