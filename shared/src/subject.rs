//! All names in NATS: streams, consumers, subjects, keys and headers. No other file spells them.
//!
//! Tokens that come from users (workspace, source, event, unique values) are percent-encoded, so that any
//! text fits into one subject token and decodes unchanged.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// The KV bucket of entities, hooks, unique keys and the outbox.
pub const BUCKET: &str = "hookline";
pub const BUCKET_STREAM: &str = "KV_hookline";
/// Events until they are acked and purged.
pub const EVENTS_STREAM: &str = "HOOKLINE_EVENTS";
/// Parked deliveries, and deliveries for any worker.
pub const DELIVERIES_STREAM: &str = "HOOKLINE_DELIVERIES";
pub const DEAD_STREAM: &str = "HOOKLINE_DEAD";
/// The delivery log.
pub const ATTEMPTS_STREAM: &str = "HOOKLINE_ATTEMPTS";
/// Who changed what through the Admin API, and who was refused.
pub const AUDIT_STREAM: &str = "HOOKLINE_AUDIT";

/// The consumer of [`EVENTS_STREAM`], durable and shared by all dispatchers like the other two.
pub const DISPATCHERS_CONSUMER: &str = "dispatchers";
/// The consumer of [`DELIVERIES_STREAM`] for due deliveries.
pub const RETRIES_CONSUMER: &str = "retries";
/// The consumer of [`DELIVERIES_STREAM`] for first attempts of events that very many hooks match.
pub const FANOUT_CONSUMER: &str = "fanout";
/// The queue group of dispatchers for `ping` and `test`.
pub const RPC_GROUP: &str = "dispatchers";

pub const BUCKET_SUBJECTS: &str = "$KV.hookline.>";
pub const OUTBOX_SUBJECTS: &str = "$KV.hookline.outbox.*.>";
/// Audit records about to be copied to [`AUDIT_STREAM`].
pub const AUDIT_KEYS: &str = "$KV.hookline.audit.*.>";
pub const ENTITY_SUBJECTS: &str = "$KV.hookline.entity.>";
/// Of entities for all workspaces in buckets whose keys have `%` where they now have `=`: every bucket had some.
pub(crate) const OLD_ENTITY_SUBJECTS: &str = "$KV.hookline.entity.%2A.>";
/// Hooks of all workspaces, and [`HOOKS_REVISION`]. A single filter, because a consumer with several makes
/// the server walk all subjects of a block for each message.
pub const HOOKS_SUBJECTS: &str = "$KV.hookline.entity.*.event_hooks.*";
/// Written after every change of a hook, in the same batch: the sequence of its last message says how new a
/// dispatcher's snapshot of the hooks must be. No hook has this id.
pub const HOOKS_REVISION: &str = "$KV.hookline.entity.=2A.event_hooks.revision";

/// Carries the conditions of a write for which it has no other message. Gateways may write it, as they may any unique key.
pub const GUARDS_KEY: &str = "$KV.hookline.unique.guards";

/// What must be equal on all dispatchers.
pub const CLUSTER_KEY: &str = "$KV.hookline.cluster.dispatchers";

/// All subjects of a stream. Any other filter makes the server walk all subjects while it locks the stream; with a
/// million subjects that takes a good part of a second.
pub const ALL_SUBJECTS: &str = ">";

pub const EVENT_SUBJECTS: &str = "hookline.events.>";
/// Where [`EVENTS_STREAM`] republishes events, for `nats sub`.
pub const WATCH_SUBJECTS: &str = "hookline.watch.>";
/// All messages of [`DELIVERIES_STREAM`].
pub const DELIVERY_SUBJECTS: &str = "hookline.deliveries.>";
/// Parked deliveries whose time has come.
pub const DUE_SUBJECTS: &str = "hookline.deliveries.due.>";
/// Deliveries that any worker may attempt at once.
pub const NOW_SUBJECTS: &str = "hookline.deliveries.now.>";
pub const ATTEMPT_SUBJECTS: &str = "hookline.attempts.>";
/// Audit records: `<workspace>.hookline:audit.<write, action or refusal>`.
pub const AUDIT_SUBJECTS: &str = "hookline.audit.>";
/// Those that were copied from the bucket.
pub const AUDIT_WRITES: &str = "hookline.audit.*.hookline:audit.write";
pub const DEAD_SUBJECTS: &str = "hookline.dead.>";
/// Dead letters of malformed events.
pub const DEAD_EVENT_SUBJECTS: &str = "hookline.dead.event.>";

/// The workspace of entities that are created without a workspace prefix.
pub const DEFAULT_WORKSPACE: &str = "default";
/// The workspace of hooks that hear all workspaces. No workspace can have this name.
pub const ALL_WORKSPACES: &str = "*";
/// Where the entities are that an entity of this workspace names.
#[must_use]
pub fn home(workspace: &str) -> &str {
    match workspace {
        ALL_WORKSPACES => DEFAULT_WORKSPACE,
        workspace => workspace,
    }
}

pub const HOOK_KIND: &str = "event_hooks";
/// Certificates with keys, which hooks present to receivers.
pub const CERTIFICATE_KIND: &str = "certificates";
/// Authorities that hooks trust.
pub const AUTHORITY_KIND: &str = "ca_certificates";
/// What dispatchers follow beside hooks. The keys of these kinds stand among those of hooks, as
/// `event_hooks.<kind>-<id>`, so that one watch has them all in order.
const BESIDE_HOOKS: [&str; 2] = [CERTIFICATE_KIND, AUTHORITY_KIND];
/// The source of pings. Hooks cannot subscribe to it.
pub const PING_SOURCE: &str = "kong:event_hooks";
pub const PING_EVENT: &str = "ping";

const BUCKET_PREFIX: &str = "$KV.hookline.";
const EVENT_PREFIX: &str = "hookline.events.";

pub mod header {
    /// The publisher's event id.
    pub const MESSAGE_ID: &str = "Nats-Msg-Id";
    /// Stream, sequence and subjects that a sourced message came from.
    pub const STREAM_SOURCE: &str = "Nats-Stream-Source";
    /// Expected sequence of the subject's last message.
    pub const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
    /// The subject that [`EXPECTED_SEQUENCE`] refers to, if not the message's own.
    pub const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
    pub const BATCH_ID: &str = "Nats-Batch-Id";
    /// Position in an atomic batch, from 1.
    pub const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
    /// Marks the last message of an atomic batch.
    pub const BATCH_COMMIT: &str = "Nats-Batch-Commit";
    /// When the server publishes the message to [`SCHEDULE_TARGET`].
    pub const SCHEDULE: &str = "Nats-Schedule";
    pub const SCHEDULE_TARGET: &str = "Nats-Schedule-Target";
    /// Added by a direct get, like the next three.
    pub const SEQUENCE: &str = "Nats-Sequence";
    pub const TIME_STAMP: &str = "Nats-Time-Stamp";
    /// How many more messages match.
    pub const PENDING: &str = "Nats-Num-Pending";
    pub const STORED_SUBJECT: &str = "Nats-Subject";
    /// `DEL` or `PURGE` in the marker of a deleted key.
    pub const KV_OPERATION: &str = "KV-Operation";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";

    /// The node that raised the event.
    pub const NODE: &str = "Hookline-Node";
    /// Process id of the node that raised the event: the `pid` of handlers.
    pub const PID: &str = "Hookline-Pid";
    /// The hook that a ping is addressed to.
    pub const HOOK: &str = "Hookline-Hook";
    /// Sequence and time (Unix nanoseconds) of an entity's first message, kept by updates.
    pub const CREATED: &str = "Hookline-Created";
    /// Id of the write that stored the message, to resolve an unknown result.
    pub const WRITE: &str = "Hookline-Write";
    /// Time in Unix milliseconds at which the deletion of an entity began.
    /// With [`DELETING`]: what refers to the entity is deleted with it, so whoever finds an old mark goes on.
    pub const CASCADES: &str = "Hookline-Cascades";
    pub const DELETING: &str = "Hookline-Deleting";

    /// Subject of the delivery's event.
    pub const SUBJECT: &str = "Hookline-Subject";
    pub const EVENT_ID: &str = "Hookline-Event-Id";
    /// Whether [`EVENT_ID`] is the publisher's (`1`) or made from the sequence (`0`).
    pub const EVENT_ID_GIVEN: &str = "Hookline-Event-Id-Given";
    /// Number of the next attempt of a parked delivery, from 1.
    pub const ATTEMPT: &str = "Hookline-Attempt";
    /// How often the delivery was parked without an attempt since its last attempt.
    pub const DEFERRALS: &str = "Hookline-Deferrals";
    /// Marks a delivery that has a reservation in the hook's rate limit.
    pub const RESERVED: &str = "Hookline-Reserved";
    /// How many attempts ended with a client error (most 4xx).
    pub const REFUSALS: &str = "Hookline-Refusals";
    /// How many attempts a dead letter had when it was replayed.
    pub const ATTEMPTS_BEFORE: &str = "Hookline-Attempts-Before";
    /// Start of the delivery's first attempt in Unix milliseconds.
    pub const FIRST_ATTEMPT: &str = "Hookline-First-Attempt";
    /// When the delivery's event was stored, in Unix milliseconds, if [`EVENT_ID`] does not say so.
    pub const EVENT_TIME: &str = "Hookline-Event-Time";
    /// When somebody asked that a parked delivery be attempted at once, in Unix milliseconds.
    pub const ASKED_FOR: &str = "Hookline-Asked-For";
    /// Why the delivery is parked or dead.
    pub const REASON: &str = "Hookline-Reason";
    /// Sequence of the message that made the delivery's hook: deliveries of a deleted one with the same id have another.
    pub const INCARNATION: &str = "Hookline-Incarnation";
    /// Handler of the hook of a dead letter.
    pub const HANDLER: &str = "Hookline-Handler";
    /// Size in bytes of a dead event before truncation.
    pub const ORIGINAL_SIZE: &str = "Hookline-Original-Size";

    /// The headers that identify a delivery and its event, without its progress.
    pub const KEPT: [&str; 7] = [
        SUBJECT,
        EVENT_TIME,
        EVENT_ID,
        EVENT_ID_GIVEN,
        INCARNATION,
        PID,
        TRACEPARENT,
    ];
    /// The headers of a parked delivery, except its schedule.
    pub const PARKED: [&str; 14] = [
        SUBJECT,
        EVENT_TIME,
        EVENT_ID,
        EVENT_ID_GIVEN,
        INCARNATION,
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

#[must_use]
pub fn is_outbox(subject: &str) -> bool {
    subject
        .strip_prefix(BUCKET_PREFIX)
        .is_some_and(|key| key.starts_with("outbox."))
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the subject is not hookline.events.<workspace>.<source>.<event>")]
    Shape,
    #[error("a subject token is not percent-encoded UTF-8")]
    Encoding,
    #[error("a subject token has another spelling than {0:?}, its only one")]
    Alias(String),
}

/// All characters but letters, digits, `-`, `_` and `:`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b':');
const KEY_ENCODED: &AsciiSet = &ENCODED.add(b':');
const HEADER_ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Encodes any text as one subject token.
fn encode_token(text: &str) -> Cow<'_, str> {
    percent_encode(text.as_bytes(), ENCODED).into()
}

/// Encodes any text as one token of a key. As [`encode_token`], but with `=` for `%`: the bucket's clients, the NATS CLI
/// among them, take no other sign in a key.
fn encode_key_token(text: &str) -> String {
    percent_encode(text.as_bytes(), KEY_ENCODED)
        .to_string()
        .replace('%', "=")
}

fn decode_key_token(token: &str) -> Result<String, Error> {
    if token.contains('%') {
        return Err(Error::Encoding);
    }
    decode_token(&token.replace('=', "%")).map(Cow::into_owned)
}

pub fn decode_token(token: &str) -> Result<Cow<'_, str>, Error> {
    if !token.contains('%') {
        return Ok(token.into());
    }
    percent_decode_str(token)
        .decode_utf8()
        .map_err(|_| Error::Encoding)
}

/// Encodes any text as one header line, which [`decode_token`] decodes.
#[must_use]
pub fn encode_header(text: &str) -> Cow<'_, str> {
    percent_encode(text.as_bytes(), HEADER_ENCODED).into()
}

#[must_use]
pub fn entity_key(workspace: &str, kind: &str, id: &str) -> String {
    let workspace = encode_key_token(workspace);
    format!(
        "{BUCKET_PREFIX}entity.{workspace}.{}",
        kind_and_id(kind, id)
    )
}

/// A filter for the entity with this id in any workspace.
#[must_use]
pub fn entity_in_any_workspace(kind: &str, id: &str) -> String {
    format!("{BUCKET_PREFIX}entity.*.{}", kind_and_id(kind, id))
}

fn kind_and_id(kind: &str, id: &str) -> String {
    if BESIDE_HOOKS.contains(&kind) {
        return format!("{HOOK_KIND}.{}", encode_key_token(&format!("{kind}-{id}")));
    }
    format!("{kind}.{}", encode_key_token(id))
}

/// Whether dispatchers follow a kind: a change of it writes [`HOOKS_REVISION`].
#[must_use]
pub fn is_followed_by_dispatchers(kind: &str) -> bool {
    kind == HOOK_KIND || BESIDE_HOOKS.contains(&kind)
}

/// The key that reserves a unique value of a field.
#[must_use]
pub fn unique_key(workspace: &str, kind: &str, field: &str, value: &str) -> String {
    format!(
        "{BUCKET_PREFIX}unique.{}.{kind}.{field}.{}",
        encode_key_token(workspace),
        encode_key_token(value)
    )
}

/// A filter for the entities whose id this unique key reserves across workspaces, or `None` if the key does not
/// reserve an id.
#[must_use]
pub fn entities_of_reserved_id(key: &str) -> Option<String> {
    let key = key.strip_prefix(BUCKET_PREFIX).unwrap_or(key);
    let mut tokens = key.strip_prefix("unique.")?.split('.');
    let (workspace, kind, field) = (tokens.next()?, tokens.next()?, tokens.next()?);
    let id = decode_key_token(tokens.next()?).ok()?;
    let is_id = decode_key_token(workspace).ok()? == ALL_WORKSPACES && field == "id";
    (is_id && tokens.next().is_none()).then(|| entity_in_any_workspace(kind, &id))
}

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

/// The source of audit records.
pub const AUDIT_SOURCE: &str = "hookline:audit";
/// Of a change of an entity: a copy of a record in the bucket.
pub const AUDIT_WRITE: &str = "write";
/// Of what was done to something else, such as dead letters.
pub const AUDIT_ACTION: &str = "action";
pub const AUDIT_REFUSAL: &str = "refusal";

#[must_use]
pub fn is_audit_key(subject: &str) -> bool {
    subject
        .strip_prefix(BUCKET_PREFIX)
        .is_some_and(|key| key.starts_with("audit."))
}

/// A record in the bucket, committed with what it is about.
#[must_use]
pub fn audit_key(id: &str, workspace: &str) -> String {
    let workspace = encode_token(workspace);
    format!("{BUCKET_PREFIX}audit.{id}.{workspace}.{AUDIT_SOURCE}.{AUDIT_WRITE}")
}

/// A record that is about no change of an entity.
#[must_use]
pub fn audit_subject(workspace: &str, about: &str) -> String {
    let workspace = encode_token(workspace);
    format!("hookline.audit.{workspace}.{AUDIT_SOURCE}.{about}")
}

/// The records of one workspace.
#[must_use]
pub fn audit_of(workspace: &str) -> String {
    format!("hookline.audit.{}.>", encode_token(workspace))
}

/// Returns workspace, kind and id. The key may have the bucket's prefix.
#[must_use]
pub fn parse_entity_key(key: &str) -> Option<(String, String, String)> {
    let key = key.strip_prefix(BUCKET_PREFIX).unwrap_or(key);
    let mut tokens = key.strip_prefix("entity.")?.split('.');
    let (workspace, kind, id) = (tokens.next()?, tokens.next()?, tokens.next()?);
    if tokens.next().is_some() {
        return None;
    }
    let (workspace, id) = (
        decode_key_token(workspace).ok()?,
        decode_key_token(id).ok()?,
    );
    for beside in BESIDE_HOOKS.iter().filter(|_| kind == HOOK_KIND) {
        let id = id.strip_prefix(beside).and_then(|id| id.strip_prefix('-'));
        if let Some(id) = id {
            return Some((workspace, (*beside).to_owned(), id.to_owned()));
        }
    }
    Some((workspace, kind.to_owned(), id))
}

#[must_use]
pub fn event_subject(workspace: &str, source: &str, event: &str) -> String {
    format!(
        "{EVENT_PREFIX}{}.{}.{}",
        encode_token(workspace),
        encode_token(source),
        encode_token(event)
    )
}

/// Returns workspace, source and event name.
pub fn parse_event_subject(subject: &str) -> Result<(String, String, String), Error> {
    let rest = subject.strip_prefix(EVENT_PREFIX).ok_or(Error::Shape)?;
    let mut tokens = rest.split('.');
    let (Some(workspace), Some(source), Some(event), None) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return Err(Error::Shape);
    };
    Ok((
        decode_canonical(workspace)?,
        decode_canonical(source)?,
        decode_canonical(event)?,
    ))
}

/// A name has one spelling, so that permissions on subjects cannot be evaded.
fn decode_canonical(token: &str) -> Result<String, Error> {
    let text = decode_token(token)?;
    let canonical = encode_token(&text);
    if canonical != token {
        return Err(Error::Alias(canonical.into_owned()));
    }
    Ok(text.into_owned())
}

/// Whether only gateways raise events of this source.
#[must_use]
pub fn is_internal_source(source: &str) -> bool {
    source == PING_SOURCE || source.starts_with("hookline:")
}

/// The subject of a delivery that waits.
#[must_use]
pub fn wait_subject(hook: &str, delivery: &str) -> String {
    format!("hookline.deliveries.wait.{hook}.{delivery}")
}

/// A filter for all stored deliveries of a hook.
#[must_use]
pub fn deliveries_of(hook: &str) -> String {
    format!("hookline.deliveries.*.{hook}.>")
}

/// A filter for the dead letters of a hook.
#[must_use]
pub fn dead_of(hook: &str) -> String {
    format!("hookline.dead.{hook}.>")
}

/// A filter for the waiting deliveries of a hook.
#[must_use]
pub fn waits_of(hook: &str) -> String {
    format!("hookline.deliveries.wait.{hook}.>")
}

/// Returns the ids of hook and delivery.
#[must_use]
pub fn parse_wait_subject(subject: &str) -> Option<(&str, &str)> {
    subject
        .strip_prefix("hookline.deliveries.wait.")?
        .split_once('.')
}

/// The subject to which the server moves a waiting delivery when it is due.
#[must_use]
pub fn due_subject(hook: &str, delivery: &str) -> String {
    format!("hookline.deliveries.due.{hook}.{delivery}")
}

/// The subject of a delivery that any worker may attempt at once.
#[must_use]
pub fn now_subject(hook: &str, delivery: &str) -> String {
    format!("hookline.deliveries.now.{hook}.{delivery}")
}

#[must_use]
pub fn is_for_any_worker(subject: &str) -> bool {
    subject.starts_with("hookline.deliveries.now.")
}

/// Returns the hook of a delivery that is due or for any worker.
#[must_use]
pub fn parse_ready_subject(subject: &str) -> Option<&str> {
    let rest = subject.strip_prefix("hookline.deliveries.")?;
    let rest = rest
        .strip_prefix("due.")
        .or_else(|| rest.strip_prefix("now."))?;
    rest.split_once('.').map(|(hook, _)| hook)
}

/// The subject of a hook's attempts in an hour since 1970; a message holds many.
#[must_use]
pub fn attempts_in(hook: &str, hour: u64) -> String {
    format!("hookline.attempts.{hook}.{hour}")
}

/// A filter for the attempts of a hook.
#[must_use]
pub fn attempts_of(hook: &str) -> String {
    format!("hookline.attempts.{hook}.*")
}

#[must_use]
pub fn parse_attempt_hour(subject: &str) -> Option<u64> {
    subject.split('.').nth(3)?.parse().ok()
}

#[must_use]
pub fn dead_subject(hook: &str, delivery: &str) -> String {
    format!("hookline.dead.{hook}.{delivery}")
}

/// The subject of a malformed event's dead letter; `id` is a hash of the event's id.
#[must_use]
pub fn dead_event_subject(id: &str) -> String {
    format!("hookline.dead.event.{id}")
}

/// Whether a filter matches a subject, by the rules of NATS.
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

/// The subject of requests from gateways to dispatchers.
#[must_use]
pub fn rpc_subject(verb: &str) -> String {
    format!("hookline.rpc.{verb}")
}

pub const RPC_SUBJECTS: &str = "hookline.rpc.*";
/// Where dispatchers give signs of life.
pub const WORKERS: &str = "hookline.workers";

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
            "=41",
            "a=b",
            "é漢字",
            "",
            "dao:crud",
            "a\r\nb",
        ] {
            let token = encode_token(text);
            assert!(!token.contains(['.', '*', '>', ' ', '\r', '\n']), "{token}");
            assert_eq!(decode_token(&token).as_deref(), Ok(text));
            let key = encode_key_token(text);
            // What clients of a bucket take, see ADR-8 of NATS.
            let plain = |char: char| char.is_ascii_alphanumeric() || "-/_=".contains(char);
            assert!(key.chars().all(plain), "{key}");
            assert_eq!(decode_key_token(&key).as_deref(), Ok(text));
            assert!(
                decode_key_token(&format!("{key}%41")).is_err(),
                "two spellings"
            );
        }
    }

    #[test]
    fn plain_names_are_not_encoded() {
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
    fn filters_match_as_on_the_server() {
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
    fn a_token_that_is_not_utf8_is_refused() {
        assert_eq!(
            parse_event_subject("hookline.events.default.crud.%FF"),
            Err(Error::Encoding)
        );
    }

    #[test]
    fn only_keys_of_ids_have_a_filter_for_entities() {
        let key = unique_key(ALL_WORKSPACES, "consumers", "id", "a.b");
        let want = "$KV.hookline.entity.*.consumers.a=2Eb";
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
        assert_eq!(subject, "$KV.hookline.entity.=2A.event_hooks.id-1");
        let parsed = parse_entity_key(&subject);
        assert_eq!(
            parsed,
            Some(("*".into(), "event_hooks".into(), "id-1".into()))
        );
        assert_eq!(parsed, parse_entity_key("entity.=2A.event_hooks.id-1"));
        assert_eq!(
            parse_entity_key("unique.default.consumers.username.x"),
            None
        );
    }

    #[test]
    fn what_dispatchers_follow_stands_under_one_filter() {
        for kind in [HOOK_KIND, CERTIFICATE_KIND, AUTHORITY_KIND] {
            let key = entity_key("team a", kind, "id-1");
            let tokens: Vec<_> = key.split('.').collect();
            let filter: Vec<_> = HOOKS_SUBJECTS.split('.').collect();
            assert_eq!(tokens.len(), filter.len(), "{key}");
            let fits = |(token, filter): (&&str, &&str)| *filter == "*" || token == filter;
            assert!(tokens.iter().zip(&filter).all(fits), "{key}");
            let parsed = parse_entity_key(&key);
            assert_eq!(parsed, Some(("team a".into(), kind.into(), "id-1".into())));
        }
    }
}
