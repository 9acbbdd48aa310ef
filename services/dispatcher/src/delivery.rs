//! One delivery on one worker, and the message that stores it: parked, dead, or for any worker.

use std::sync::Arc;

use async_nats::Message;
use hookline_shared::batch;
use hookline_shared::event::{self, DeliveryId, Event, EventId};
use hookline_shared::subject::{self, decode_token, encode_header, header};

use crate::admission::refusal::Place;
use crate::handler::{Class, Delivery};
use crate::hooks::Prepared;

/// The longest reason that is stored.
const REASON_BYTES: usize = 1_024;

#[derive(Debug, Clone)]
pub(crate) struct PendingDelivery {
    pub delivery: Delivery,
    /// From 1.
    pub attempt: u32,
    /// Start of the first attempt, in Unix milliseconds.
    pub first_attempt: u64,
    /// How often it was parked without an attempt since the last attempt.
    pub deferrals: u32,
    /// Its place in the hook's rate limit, if it waited for one.
    pub place: Option<Place>,
    /// Attempts answered with most of 4xx, see [`Class::RetryBriefly`].
    pub refusals: u32,
    /// Attempts before it was replayed, which the schedule does not count.
    pub before: u32,
}

impl PendingDelivery {
    #[must_use]
    pub(crate) fn first(delivery: Delivery, now: u64) -> Self {
        Self {
            delivery,
            attempt: 1,
            first_attempt: now,
            deferrals: 0,
            place: None,
            refusals: 0,
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
            refusals: self.refusals + u32::from(class == Class::RetryBriefly),
            ..self.clone()
        }
    }

    /// Reads a stored delivery. None if it is malformed.
    #[must_use]
    pub(crate) fn read(message: &Message, hook: &Prepared) -> Option<Self> {
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
        let count = |name| get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(Self {
            delivery: delivery(&Arc::new(event), hook),
            attempt: get(header::ATTEMPT)?.parse().ok()?,
            first_attempt: get(header::FIRST_ATTEMPT)?.parse().ok()?,
            deferrals: count(header::DEFERRALS),
            place: get(header::RESERVED)
                .and_then(|place| place.parse().ok())
                .map(Place),
            refusals: count(header::REFUSALS),
            before: count(header::ATTEMPTS_BEFORE),
        })
    }

    /// Stores the delivery: the event as it was published, and the delivery's state. [`read`](Self::read) is the
    /// inverse.
    #[must_use]
    pub(crate) fn message(&self, subject: String, reason: &str) -> batch::Message {
        let event: &Event = &self.delivery.event;
        let published = subject::event_subject(&event.workspace, &event.source, &event.name);
        let mut message = batch::Message::new(subject, event.raw.clone())
            .header(header::SUBJECT, published)
            .header(header::EVENT_ID, encode_header(event.id.as_str()))
            .header(
                header::EVENT_ID_GIVEN,
                if event.id.is_given() { "1" } else { "0" },
            )
            .header(header::ATTEMPT, self.attempt.to_string())
            .header(header::FIRST_ATTEMPT, self.first_attempt.to_string())
            .header(header::PID, self.delivery.pid().to_string())
            .header(header::REASON, encode_header(cut(reason)));
        if self.deferrals > 0 {
            message = message.header(header::DEFERRALS, self.deferrals.to_string());
        }
        if self.before > 0 {
            message = message.header(header::ATTEMPTS_BEFORE, self.before.to_string());
        }
        if self.refusals > 0 {
            message = message.header(header::REFUSALS, self.refusals.to_string());
        }
        if let Some(Place(place)) = self.place {
            message = message.header(header::RESERVED, place.to_string());
        }
        if let Some(trace) = &event.traceparent {
            message = message.header(header::TRACEPARENT, encode_header(trace));
        }
        message
    }
}

#[must_use]
pub(crate) fn delivery(event: &Arc<Event>, hook: &Prepared) -> Delivery {
    let event_name = match &hook.event_name {
        Some(name) if event.source != subject::PING_SOURCE => Arc::clone(name),
        _ => event.name.as_str().into(),
    };
    Delivery {
        id: DeliveryId::new(event, &hook.hook.id),
        event: Arc::clone(event),
        event_name,
    }
}

/// Cuts a reason at the size that is stored.
#[must_use]
pub(crate) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES)]
}
