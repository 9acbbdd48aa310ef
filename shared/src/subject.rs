//! The names on the wire: streams, consumers, subjects, keys and headers.
//!
//! They are spelled here and nowhere else. Tokens that come from users (workspace, source, event,
//! unique values) are percent-encoded, so that any text fits into one subject token and comes back
//! unchanged.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// The KV bucket that holds entities, hooks, unique keys and the outbox.
pub const BUCKET: &str = "hookline";
/// The stream behind [`BUCKET`].
pub const BUCKET_STREAM: &str = "KV_hookline";
/// The stream of events that are not yet dealt with.
pub const EVENTS_STREAM: &str = "HOOKLINE_EVENTS";
/// The stream of parked deliveries.
pub const DELIVERIES_STREAM: &str = "HOOKLINE_DELIVERIES";
/// The stream of dead letters.
pub const DEAD_STREAM: &str = "HOOKLINE_DEAD";
/// The stream of attempts: the delivery log.
pub const ATTEMPTS_STREAM: &str = "HOOKLINE_ATTEMPTS";

/// The durable consumer of [`EVENTS_STREAM`] that all dispatchers share: first attempts.
pub const DISPATCHERS_CONSUMER: &str = "dispatchers";
/// The durable consumer of [`DELIVERIES_STREAM`] that all dispatchers share: parked deliveries
/// that fell due.
pub const RETRIES_CONSUMER: &str = "retries";
/// The durable consumer of [`DELIVERIES_STREAM`] that all dispatchers share: first attempts of
/// events that very many hooks match.
pub const FANOUT_CONSUMER: &str = "fanout";
/// The queue group in which dispatchers answer `ping` and `test`.
pub const RPC_GROUP: &str = "dispatchers";

/// Every subject of the bucket.
pub const BUCKET_SUBJECTS: &str = "$KV.hookline.>";
/// Outbox entries in the bucket, as [`EVENTS_STREAM`] sources them.
pub const OUTBOX_SUBJECTS: &str = "$KV.hookline.outbox.*.>";
/// Entities in the bucket.
pub const ENTITY_SUBJECTS: &str = "$KV.hookline.entity.>";
/// Hooks of all workspaces, and [`HOOKS_REVISION`]. One filter: for each message that a consumer with
/// several gets, the server goes through all subjects of a block.
pub const HOOKS_SUBJECTS: &str = "$KV.hookline.entity.*.event_hooks.*";
/// Written in the same batch as every change of a hook, after it: the sequence of its last
/// message says how new a dispatcher's hook index must be. No hook has this id.
pub const HOOKS_REVISION: &str = "$KV.hookline.entity.%2A.event_hooks.revision";

/// Every subject of a stream. A server goes through all subjects of a stream to apply any other
/// filter to it, and holds the stream meanwhile: with a million, for a good part of a second.
pub const ALL_SUBJECTS: &str = ">";

/// All events.
pub const EVENT_SUBJECTS: &str = "hookline.events.>";
/// Where [`EVENTS_STREAM`] republishes what it stores, for `nats sub`.
pub const WATCH_SUBJECTS: &str = "hookline.watch.>";
/// All parked deliveries, waiting or due.
pub const DELIVERY_SUBJECTS: &str = "hookline.deliveries.>";
/// Parked deliveries that fell due.
pub const DUE_SUBJECTS: &str = "hookline.deliveries.due.>";
/// Deliveries that any worker may make at once.
pub const NOW_SUBJECTS: &str = "hookline.deliveries.now.>";
/// All attempts.
pub const ATTEMPT_SUBJECTS: &str = "hookline.attempts.>";
/// All dead letters.
pub const DEAD_SUBJECTS: &str = "hookline.dead.>";

/// Dead events: messages that are none.
pub const DEAD_EVENT_SUBJECTS: &str = "hookline.dead.event.>";

/// The workspace of everything that is created without a workspace prefix.
pub const DEFAULT_WORKSPACE: &str = "default";
/// The workspace token of a hook that hears every workspace. No workspace can have this name.
pub const ALL_WORKSPACES: &str = "*";
/// The kind under which hooks are kept.
pub const HOOK_KIND: &str = "event_hooks";
/// The source of pings, which is no source that a hook can listen to.
pub const PING_SOURCE: &str = "kong:event_hooks";
/// The event name of pings.
pub const PING_EVENT: &str = "ping";

const BUCKET_PREFIX: &str = "$KV.hookline.";
const EVENT_PREFIX: &str = "hookline.events.";

/// Header names.
pub mod header {
    /// The publisher's event id.
    pub const MESSAGE_ID: &str = "Nats-Msg-Id";
    /// Stream, sequence and subjects a sourced message came from.
    pub const STREAM_SOURCE: &str = "Nats-Stream-Source";
    /// Sequence that the subject's last message must have.
    pub const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
    /// Subject that [`EXPECTED_SEQUENCE`] speaks of, where it is not the message's own.
    pub const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
    /// Id of an atomic batch.
    pub const BATCH_ID: &str = "Nats-Batch-Id";
    /// Place in an atomic batch, from 1.
    pub const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
    /// Marks the last message of an atomic batch.
    pub const BATCH_COMMIT: &str = "Nats-Batch-Commit";
    /// When the server publishes a message to its target.
    pub const SCHEDULE: &str = "Nats-Schedule";
    /// Subject that a schedule publishes to.
    pub const SCHEDULE_TARGET: &str = "Nats-Schedule-Target";
    /// Sequence of a message that was read directly.
    pub const SEQUENCE: &str = "Nats-Sequence";
    /// When a message that was read directly was stored.
    pub const TIME_STAMP: &str = "Nats-Time-Stamp";
    /// How many more messages match what was read directly.
    pub const PENDING: &str = "Nats-Num-Pending";
    /// Subject of a message that was read directly.
    pub const STORED_SUBJECT: &str = "Nats-Subject";
    /// KV operation of a marker (`DEL`, `PURGE`).
    pub const KV_OPERATION: &str = "KV-Operation";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";

    /// Node an event came from.
    pub const NODE: &str = "Hookline-Node";
    /// Process id of the node an event came from: the handlers' `pid`.
    pub const PID: &str = "Hookline-Pid";
    /// Hook that a ping is addressed to.
    pub const HOOK: &str = "Hookline-Hook";
    /// Sequence and time (Unix nanoseconds) of an entity's first message, kept over updates.
    pub const CREATED: &str = "Hookline-Created";
    /// Id of the write that made a message, by which an unknown result is resolved.
    pub const WRITE: &str = "Hookline-Write";
    /// Since when (Unix milliseconds) an entity is being deleted.
    pub const DELETING: &str = "Hookline-Deleting";

    /// Subject under which the event of a delivery was published.
    pub const SUBJECT: &str = "Hookline-Subject";
    /// Id of the event of a delivery.
    pub const EVENT_ID: &str = "Hookline-Event-Id";
    /// Whether [`EVENT_ID`] was given by the publisher (`1`) or made from the sequence (`0`).
    pub const EVENT_ID_GIVEN: &str = "Hookline-Event-Id-Given";
    /// Number of the attempt that a parked delivery waits for, from 1.
    pub const ATTEMPT: &str = "Hookline-Attempt";
    /// How often a delivery was parked without an attempt since its last one.
    pub const DEFERRALS: &str = "Hookline-Deferrals";
    /// Marks a delivery that has its place in the hook's rate limit.
    pub const RESERVED: &str = "Hookline-Reserved";
    /// How many attempts of a delivery were answered that the request is wrong (most 4xx).
    pub const REFUSALS: &str = "Hookline-Refusals";
    /// How many attempts a dead letter had when it was replayed.
    pub const ATTEMPTS_BEFORE: &str = "Hookline-Attempts-Before";
    /// When the delivery's first attempt began (Unix milliseconds).
    pub const FIRST_ATTEMPT: &str = "Hookline-First-Attempt";
    /// Why a delivery is parked or dead.
    pub const REASON: &str = "Hookline-Reason";
    /// Handler of a dead delivery's hook.
    pub const HANDLER: &str = "Hookline-Handler";
    /// Size in bytes of a dead event before it was truncated.
    pub const ORIGINAL_SIZE: &str = "Hookline-Original-Size";

    /// The headers of a delivery that say what it is, not where it stands.
    pub const KEPT: [&str; 5] = [SUBJECT, EVENT_ID, EVENT_ID_GIVEN, PID, TRACEPARENT];
    /// The headers of a parked delivery, its schedule aside.
    pub const PARKED: [&str; 12] = [
        SUBJECT,
        EVENT_ID,
        EVENT_ID_GIVEN,
        ATTEMPT,
        ATTEMPTS_BEFORE,
        DEFERRALS,
        RESERVED,
        REFUSALS,
        FIRST_ATTEMPT,
        PID,
        REASON,
        TRACEPARENT,
    ];
}

/// Whether a subject of the bucket is that of an outbox entry.
#[must_use]
pub fn is_outbox(subject: &str) -> bool {
    subject
        .strip_prefix(BUCKET_PREFIX)
        .is_some_and(|key| key.starts_with("outbox."))
}

/// A subject or token that does not follow the scheme.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The number of tokens is wrong.
    #[error("the subject is not hookline.events.<workspace>.<source>.<event>")]
    Shape,
    /// A token is no UTF-8 once decoded.
    #[error("a subject token is not percent-encoded UTF-8")]
    Encoding,
}

/// What is encoded: all but letters, digits, `-`, `_` and `:`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b':');
/// What may not stand in a header value.
const HEADER_ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Encodes any text as one subject token.
#[must_use]
fn encode_token(text: &str) -> Cow<'_, str> {
    percent_encode(text.as_bytes(), ENCODED).into()
}

/// Decodes one subject token.
///
/// # Errors
/// [`Error::Encoding`] if the bytes are no UTF-8.
pub fn decode_token(token: &str) -> Result<Cow<'_, str>, Error> {
    if memchr(b'%', token.as_bytes()).is_none() {
        return Ok(token.into());
    }
    percent_decode_str(token)
        .decode_utf8()
        .map_err(|_| Error::Encoding)
}

/// Makes any text fit into one header line. [`decode_token`] takes it back.
#[must_use]
pub fn encode_header(text: &str) -> Cow<'_, str> {
    percent_encode(text.as_bytes(), HEADER_ENCODED).into()
}

/// The bucket subject of an entity.
#[must_use]
pub fn entity_key(workspace: &str, kind: &str, id: &str) -> String {
    format!(
        "{BUCKET_PREFIX}entity.{}.{kind}.{}",
        encode_token(workspace),
        encode_token(id)
    )
}

/// The bucket subjects that an entity with this id has in any workspace: a wildcard.
#[must_use]
pub fn entity_in_any_workspace(kind: &str, id: &str) -> String {
    format!("{BUCKET_PREFIX}entity.*.{kind}.{}", encode_token(id))
}

/// The bucket subject that reserves a unique value of a field.
#[must_use]
pub fn unique_key(workspace: &str, kind: &str, field: &str, value: &str) -> String {
    format!(
        "{BUCKET_PREFIX}unique.{}.{kind}.{field}.{}",
        encode_token(workspace),
        encode_token(value)
    )
}

/// The wildcard for the entities that may have the id which this key reserves across workspaces; `None` if it
/// reserves none.
#[must_use]
pub fn entities_of_reserved_id(key: &str) -> Option<String> {
    let key = key.strip_prefix(BUCKET_PREFIX).unwrap_or(key);
    let mut tokens = key.strip_prefix("unique.")?.split('.');
    let (workspace, kind, field) = (tokens.next()?, tokens.next()?, tokens.next()?);
    let id = decode_token(tokens.next()?).ok()?;
    let is_id = decode_token(workspace).ok()? == ALL_WORKSPACES && field == "id";
    (is_id && tokens.next().is_none()).then(|| entity_in_any_workspace(kind, &id))
}

/// The bucket subject of an outbox entry.
#[must_use]
pub fn outbox_key(id: &str, workspace: &str, source: &str, event: &str) -> String {
    format!(
        "{BUCKET_PREFIX}outbox.{}.{}.{}.{}",
        encode_token(id),
        encode_token(workspace),
        encode_token(source),
        encode_token(event)
    )
}

/// Workspace, kind and id of an entity's key, with or without the bucket's prefix.
#[must_use]
pub fn parse_entity_key(key: &str) -> Option<(String, String, String)> {
    let key = key.strip_prefix(BUCKET_PREFIX).unwrap_or(key);
    let mut tokens = key.strip_prefix("entity.")?.split('.');
    let (workspace, kind, id) = (tokens.next()?, tokens.next()?, tokens.next()?);
    if tokens.next().is_some() {
        return None;
    }
    Some((
        decode_token(workspace).ok()?.into_owned(),
        kind.to_owned(),
        decode_token(id).ok()?.into_owned(),
    ))
}

/// The subject of an event.
#[must_use]
pub fn event_subject(workspace: &str, source: &str, event: &str) -> String {
    format!(
        "{EVENT_PREFIX}{}.{}.{}",
        encode_token(workspace),
        encode_token(source),
        encode_token(event)
    )
}

/// Workspace, source and event name of an event's subject.
///
/// # Errors
/// [`Error`] if there are not exactly three tokens after the prefix, or one does not decode.
pub fn parse_event_subject(subject: &str) -> Result<(String, String, String), Error> {
    let rest = subject.strip_prefix(EVENT_PREFIX).ok_or(Error::Shape)?;
    let mut tokens = rest.split('.');
    let (Some(workspace), Some(source), Some(event), None) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return Err(Error::Shape);
    };
    Ok((
        decode_token(workspace)?.into_owned(),
        decode_token(source)?.into_owned(),
        decode_token(event)?.into_owned(),
    ))
}

/// Where a parked delivery waits.
#[must_use]
pub fn wait_subject(hook: &str, delivery: &str) -> String {
    format!("hookline.deliveries.wait.{hook}.{delivery}")
}

/// Everything of one hook that waits or is due.
#[must_use]
pub fn deliveries_of(hook: &str) -> String {
    format!("hookline.deliveries.*.{hook}.>")
}

/// The dead letters of one hook.
#[must_use]
pub fn dead_of(hook: &str) -> String {
    format!("hookline.dead.{hook}.>")
}

/// Everything of one hook that waits.
#[must_use]
pub fn waits_of(hook: &str) -> String {
    format!("hookline.deliveries.wait.{hook}.>")
}

/// Hook and delivery of a waiting delivery's subject.
#[must_use]
pub fn parse_wait_subject(subject: &str) -> Option<(&str, &str)> {
    subject
        .strip_prefix("hookline.deliveries.wait.")?
        .split_once('.')
}

/// Where a parked delivery appears when it falls due.
#[must_use]
pub fn due_subject(hook: &str, delivery: &str) -> String {
    format!("hookline.deliveries.due.{hook}.{delivery}")
}

/// Where a delivery is that any worker may make at once.
#[must_use]
pub fn now_subject(hook: &str, delivery: &str) -> String {
    format!("hookline.deliveries.now.{hook}.{delivery}")
}

/// Whether a subject is that of a delivery that any worker may make at once.
#[must_use]
pub fn is_for_any_worker(subject: &str) -> bool {
    subject.starts_with("hookline.deliveries.now.")
}

/// The hook of a delivery that is to be made: one that fell due, or that is for any worker.
#[must_use]
pub fn parse_ready_subject(subject: &str) -> Option<&str> {
    let rest = subject.strip_prefix("hookline.deliveries.")?;
    let rest = rest
        .strip_prefix("due.")
        .or_else(|| rest.strip_prefix("now."))?;
    rest.split_once('.').map(|(hook, _)| hook)
}

/// Where a hook's attempts are logged that began in this hour since 1970, many in one message.
#[must_use]
pub fn attempts_in(hook: &str, hour: u64) -> String {
    format!("hookline.attempts.{hook}.{hour}")
}

/// The attempts of one hook.
#[must_use]
pub fn attempts_of(hook: &str) -> String {
    format!("hookline.attempts.{hook}.*")
}

/// The hour of an attempt's subject.
#[must_use]
pub fn parse_attempt_hour(subject: &str) -> Option<u64> {
    subject.split('.').nth(3)?.parse().ok()
}

/// Where a dead delivery is kept.
#[must_use]
pub fn dead_subject(hook: &str, delivery: &str) -> String {
    format!("hookline.dead.{hook}.{delivery}")
}

/// Where an event that could not be understood is kept; `id` is a hash of the event's id.
#[must_use]
pub fn dead_event_subject(id: &str) -> String {
    format!("hookline.dead.event.{id}")
}

/// Whether a subject is one of those that a filter with wildcards means.
#[must_use]
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", token) => return token.is_some(),
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Where a dispatcher answers what a gateway asks about a hook.
#[must_use]
pub fn rpc_subject(verb: &str) -> String {
    format!("hookline.rpc.{verb}")
}

/// Every question that a dispatcher answers.
pub const RPC_SUBJECTS: &str = "hookline.rpc.*";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_as_one_token() {
        for text in [
            "Ada Lovelace",
            "a.b",
            "*",
            ">",
            "%41",
            "é漢字",
            "",
            "dao:crud",
            "a\r\nb",
        ] {
            let token = encode_token(text);
            assert!(!token.contains(['.', '*', '>', ' ', '\r', '\n']), "{token}");
            assert_eq!(decode_token(&token).as_deref(), Ok(text));
        }
    }

    #[test]
    fn plain_names_are_spelled_as_they_are() {
        assert_eq!(
            event_subject("default", "dao:crud", "create"),
            "hookline.events.default.dao:crud.create"
        );
    }

    #[test]
    fn an_event_subject_has_exactly_three_tokens() {
        for subject in [
            "hookline.events.default",
            "hookline.events.default.crud",
            "hookline.events.default.crud.consumers.create",
            "other.default.crud.consumers",
        ] {
            assert_eq!(parse_event_subject(subject), Err(Error::Shape), "{subject}");
        }
        let subject = event_subject("team a", "crud", "x.y");
        assert_eq!(
            parse_event_subject(&subject),
            Ok(("team a".into(), "crud".into(), "x.y".into()))
        );
    }

    #[test]
    fn a_filter_means_what_it_means_to_the_server() {
        let subject = wait_subject("h", "d");
        for filter in [ALL_SUBJECTS, &deliveries_of("h"), &waits_of("h"), &subject] {
            assert!(matches(filter, &subject), "{filter}");
        }
        for filter in [
            waits_of("other").as_str(),
            "hookline.deliveries.wait",
            "hookline.deliveries.wait.*",
            "hookline.deliveries.wait.h.d.>",
            "hookline.deliveries.wait.h.d.*",
        ] {
            assert!(!matches(filter, &subject), "{filter}");
        }
    }

    #[test]
    fn a_token_that_is_no_utf8_is_refused() {
        assert_eq!(
            parse_event_subject("hookline.events.default.crud.%FF"),
            Err(Error::Encoding)
        );
    }

    #[test]
    fn only_a_reserved_id_leads_to_entities() {
        let key = unique_key(ALL_WORKSPACES, "consumers", "id", "a.b");
        let want = "$KV.hookline.entity.*.consumers.a%2Eb";
        assert_eq!(entities_of_reserved_id(&key).as_deref(), Some(want));
        for key in [
            unique_key("default", "consumers", "id", "a"),
            unique_key(ALL_WORKSPACES, "workspaces", "name", "a"),
            entity_key("default", "consumers", "a"),
        ] {
            assert_eq!(entities_of_reserved_id(&key), None, "{key}");
        }
    }

    #[test]
    fn entity_keys_parse_with_and_without_the_bucket_prefix() {
        let subject = entity_key(ALL_WORKSPACES, HOOK_KIND, "id-1");
        assert_eq!(subject, "$KV.hookline.entity.%2A.event_hooks.id-1");
        let parsed = parse_entity_key(&subject);
        assert_eq!(
            parsed,
            Some(("*".into(), "event_hooks".into(), "id-1".into()))
        );
        assert_eq!(parsed, parse_entity_key("entity.%2A.event_hooks.id-1"));
        assert_eq!(
            parse_entity_key("unique.default.consumers.username.x"),
            None
        );
    }
}
