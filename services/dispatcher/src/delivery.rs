//! One delivery on one worker, and the message that stores it: parked, dead, or for any worker.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use hookline_shared::event::{self, DeliveryId, Event, EventId, Stored};
use hookline_shared::subject::{self, decode_token, encode_header, header};
use hookline_shared::{batch, clock};

use crate::admission::refusal::Place;
use crate::handler::{Class, Delivery};
use crate::metrics::Attempt;

/// The longest reason that is stored.
const REASON_BYTES: usize = 1_024;

/// The most attempts, deferrals or refusals that a stored delivery may claim to have had.
const MAX_COUNT: u32 = 1_000_000;

#[derive(Debug, Clone)]
pub(crate) struct PendingDelivery {
    pub delivery: Delivery,
    /// That of its hook, see [`Prepared::incarnation`](crate::hooks::Prepared::incarnation). 0: stored by a version that
    /// did not know it.
    pub incarnation: u64,
    /// From 1.
    pub attempt: u32,
    /// When the event was stored, in Unix milliseconds.
    pub event_time: u64,
    /// Start of the first attempt, in Unix milliseconds.
    pub first_attempt: u64,
    /// How often it was parked without an attempt since the last attempt.
    pub deferrals: u32,
    /// Its place in the hook's rate limit, if it waited for one.
    pub place: Option<Place>,
    /// Attempts answered with most of 4xx, see [`Class::RetryBriefly`].
    pub refusals: u32,
    /// When somebody asked for this attempt, in Unix milliseconds.
    pub asked_for: Option<u64>,
    /// Attempts before it was replayed, which the schedule does not count.
    pub before: u32,
}

impl PendingDelivery {
    #[must_use]
    pub(crate) fn first(delivery: Delivery, incarnation: u64, event_time: u64, now: u64) -> Self {
        Self {
            delivery,
            incarnation,
            attempt: 1,
            event_time,
            first_attempt: now,
            deferrals: 0,
            place: None,
            refusals: 0,
            asked_for: None,
            before: 0,
        }
    }

    /// The attempt after one that failed.
    #[must_use]
    pub(crate) fn next(&self, class: Class) -> Self {
        Self {
            attempt: self.attempt + 1,
            deferrals: 0,
            place: None,
            refusals: self.refusals + u32::from(matches!(class, Class::RetryBriefly(_))),
            ..self.clone()
        }
    }

    /// Since the event was stored, for metrics.
    #[must_use]
    pub(crate) fn lag(&self) -> (Attempt, Duration) {
        let attempt = match (self.attempt, self.deferrals) {
            (1, 0) => Attempt::First,
            _ => Attempt::Later,
        };
        let lag = clock::unix_millis().saturating_sub(self.event_time);
        (attempt, Duration::from_millis(lag))
    }

    /// Reads a stored delivery of a hook. `event_name`: see [`delivery`]. None if it is malformed.
    #[must_use]
    pub(crate) fn read(
        message: &Message,
        hook: &str,
        event_name: Option<&Arc<str>>,
    ) -> Option<Self> {
        let headers = message.headers.as_ref();
        let get = |name| event::get(headers, name);
        let id = decode_token(get(header::EVENT_ID)?).ok()?.into_owned();
        let id = match get(header::EVENT_ID_GIVEN)? {
            "1" => EventId::given(id),
            _ => {
                let (sequence, time) = id.split_once('-')?;
                EventId::stored(sequence.parse().ok()?, time.parse().ok()?)
            }
        };
        let body = message.payload.clone();
        let event = Event::parse_with_id(get(header::SUBJECT)?, headers, body, id).ok()?;
        // Far from where counting on would overflow.
        let number = |text: &str| text.parse().ok().filter(|n: &u32| *n <= MAX_COUNT);
        let count = |name| get(name).and_then(number).unwrap_or(0);
        let first_attempt = get(header::FIRST_ATTEMPT)?.parse().ok()?;
        let given_time = || get(header::EVENT_TIME).and_then(|time| time.parse().ok());
        Some(Self {
            event_time: event
                .id
                .place()
                .map(Stored::unix_millis)
                .or_else(given_time)
                .unwrap_or(first_attempt),
            delivery: delivery(&Arc::new(event), hook, event_name),
            incarnation: get(header::INCARNATION).map_or(Some(0), |text| text.parse().ok())?,
            attempt: number(get(header::ATTEMPT)?).filter(|attempt| *attempt > 0)?,
            first_attempt,
            deferrals: count(header::DEFERRALS),
            place: get(header::RESERVED)
                .and_then(|place| place.parse().ok())
                .map(Place),
            refusals: count(header::REFUSALS),
            asked_for: get(header::ASKED_FOR)
                .and_then(|at| at.parse().ok())
                .map(|at: u64| at.min(clock::unix_millis())),
            before: count(header::ATTEMPTS_BEFORE),
        })
    }

    /// Stores the delivery: the event as it was published, and the delivery's state. [`read`](Self::read) is the
    /// inverse.
    #[must_use]
    pub(crate) fn message(&self, subject: String, reason: &str) -> batch::Message {
        let message = batch::Message::new(subject, self.delivery.event.raw.clone());
        let headers = self.headers(reason).into_iter();
        headers.fold(message, |message, (name, value)| {
            message.header(name, value)
        })
    }

    fn headers(&self, reason: &str) -> Vec<(&'static str, String)> {
        let event: &Event = &self.delivery.event;
        let published = subject::event_subject(&event.workspace, &event.source, &event.name);
        let is_given = u8::from(event.id.is_given());
        let mut headers = vec![
            (header::SUBJECT, published),
            (header::EVENT_ID, encode_header(event.id.as_str()).into()),
            (header::EVENT_ID_GIVEN, is_given.to_string()),
            (header::INCARNATION, self.incarnation.to_string()),
            (header::ATTEMPT, self.attempt.to_string()),
            (header::FIRST_ATTEMPT, self.first_attempt.to_string()),
            (header::PID, self.delivery.pid().to_string()),
            (header::REASON, encode_header(cut(reason)).into()),
        ];
        let counts = [
            (header::DEFERRALS, self.deferrals),
            (header::ATTEMPTS_BEFORE, self.before),
            (header::REFUSALS, self.refusals),
        ];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        headers.extend(counts.map(|(name, count)| (name, count.to_string())));
        if let Some(Place(place)) = self.place {
            headers.push((header::RESERVED, place.to_string()));
        }
        if event.id.is_given() {
            headers.push((header::EVENT_TIME, self.event_time.to_string()));
        }
        if let Some(trace) = &event.traceparent {
            headers.push((header::TRACEPARENT, encode_header(trace).into()));
        }
        headers
    }
}

/// `event_name`: the one that the hook asked for; None for the event's own.
#[must_use]
pub(crate) fn delivery(event: &Arc<Event>, hook: &str, event_name: Option<&Arc<str>>) -> Delivery {
    let event_name = match event_name {
        Some(name) if event.source != subject::PING_SOURCE => Arc::clone(name),
        _ => event.name.as_str().into(),
    };
    Delivery {
        id: DeliveryId::new(event, hook),
        event: Arc::clone(event),
        event_name,
        trace: None,
    }
}

/// Cuts a reason at the size that is stored.
#[must_use]
pub(crate) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES)]
}

#[cfg(test)]
pub(crate) mod tests {
    use async_nats::HeaderMap;
    use bytes::Bytes;

    use super::*;

    pub(crate) const HOOK: &str = "hook";

    /// The first attempt of a delivery whose event has this id.
    pub(crate) fn pending_with(id: EventId, data: impl Into<Bytes>) -> PendingDelivery {
        let mut headers = HeaderMap::new();
        headers.insert(header::TRACEPARENT, TRACE);
        headers.insert(header::PID, "77");
        let subject = subject::event_subject("a b", "dao:crud", "con.sumers");
        let event = Event::parse_with_id(&subject, Some(&headers), data.into(), id);
        let event = Arc::new(event.expect("an event"));
        PendingDelivery::first(delivery(&event, HOOK, None), 9, 900, 1_000)
    }

    pub(crate) fn pending() -> PendingDelivery {
        pending_with(EventId::given("1"), "{}")
    }

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn stored(headers: &[(&'static str, String)], payload: &Bytes) -> Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.as_str());
        }
        Message {
            subject: "stored".into(),
            reply: None,
            payload: payload.clone(),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    fn read(headers: &[(&'static str, String)]) -> Option<PendingDelivery> {
        PendingDelivery::read(&stored(headers, &"{}".into()), HOOK, None)
    }

    #[test]
    fn a_stored_delivery_is_read_as_it_was() {
        for id in [
            EventId::stored(7, 1_700_000_000_123_456_789),
            EventId::given("plain"),
            EventId::given("7-1700000000123456789"),
            EventId::given("\r\nX: y\u{0}%41 é\u{1f980}"),
        ] {
            let event_time = match id.place() {
                Some(_) => 1_700_000_000_123,
                None => 900,
            };
            let full = PendingDelivery {
                attempt: 3,
                event_time,
                deferrals: 2,
                place: Some(Place(1_700_000_000_000)),
                refusals: 1,
                before: 4,
                ..pending_with(id.clone(), r#"{"operation": "create"}"#)
            };
            let bare = PendingDelivery::first(full.delivery.clone(), 0, event_time, 5);
            for pending in [full, bare] {
                let event = &pending.delivery.event;
                let message = stored(&pending.headers("reason"), &event.raw);
                let read = PendingDelivery::read(&message, HOOK, None).expect("it is readable");
                let event_read = &read.delivery.event;
                assert_eq!(event_read.id, id);
                assert_eq!(event_read.raw, event.raw);
                assert_eq!(event_read.workspace, "a b");
                assert_eq!(event_read.source, "dao:crud");
                assert_eq!(event_read.name, "con.sumers");
                assert_eq!(event_read.traceparent.as_deref(), Some(TRACE));
                assert_eq!(read.delivery.pid(), 77);
                assert_eq!(read.delivery.id, pending.delivery.id);
                let state = |pending: &PendingDelivery| {
                    let counts = [pending.deferrals, pending.refusals, pending.before];
                    (
                        (pending.attempt, pending.incarnation),
                        (pending.event_time, pending.first_attempt),
                        pending.place,
                        counts,
                    )
                };
                assert_eq!(state(&read), state(&pending));
            }
        }
    }

    #[test]
    fn a_delivery_with_junk_in_a_required_header_is_refused() {
        let headers = pending().headers("");
        assert!(read(&headers).is_some());
        for (name, junk) in [
            (header::SUBJECT, "hookline.other"),
            (header::EVENT_ID, "%ff"),
            (header::ATTEMPT, "one"),
            (header::ATTEMPT, "-1"),
            (header::ATTEMPT, "0"),
            (header::ATTEMPT, "4294967295"),
            (header::ATTEMPT, "4294967296"),
            (header::FIRST_ATTEMPT, ""),
            (header::EVENT_ID_GIVEN, "0"),
        ] {
            let mut broken = headers.clone();
            for (_, value) in broken.iter_mut().filter(|(other, _)| *other == name) {
                junk.clone_into(value);
            }
            assert!(read(&broken).is_none(), "{name}: {junk}");
            broken.retain(|(other, _)| *other != name);
            assert!(read(&broken).is_none(), "without {name}");
        }
        let no_event = stored(&headers, &"[]".into());
        assert!(PendingDelivery::read(&no_event, HOOK, None).is_none());
    }

    #[test]
    fn junk_in_an_optional_header_is_ignored() {
        let mut headers = pending().headers("");
        for name in [header::DEFERRALS, header::REFUSALS, header::RESERVED] {
            headers.push((name, "junk".to_owned()));
        }
        let read = read(&headers).expect("it is readable");
        assert_eq!((read.deferrals, read.refusals, read.place), (0, 0, None));
    }

    #[test]
    fn the_next_attempt_keeps_the_count_of_refusals_only() {
        let waited = PendingDelivery {
            deferrals: 2,
            place: Some(Place(1)),
            ..pending()
        };
        let refused = waited.next(Class::RetryBriefly(None));
        assert_eq!((refused.attempt, refused.refusals), (2, 1));
        assert_eq!((refused.deferrals, refused.place), (0, None));
        let failed = refused.next(Class::Retry(None));
        assert_eq!((failed.attempt, failed.refusals), (3, 1));
    }

    #[test]
    fn a_ping_keeps_its_name_and_other_events_get_the_hooks() {
        let asked: Arc<str> = "consumers:create".into();
        let name = |source| {
            let subject = subject::event_subject("default", source, "own");
            let event = Event::parse_with_id(&subject, None, "{}".into(), EventId::given("1"));
            delivery(&Arc::new(event.expect("an event")), HOOK, Some(&asked)).event_name
        };
        assert_eq!(name("crud"), asked);
        assert_eq!(&*name(subject::PING_SOURCE), "own");
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let long = "é".repeat(REASON_BYTES);
        assert_eq!(cut(&long).len(), REASON_BYTES);
        let odd = format!("a{long}");
        assert_eq!(cut(&odd).len(), REASON_BYTES - 1);
        assert_eq!(cut("short"), "short");
    }
}
