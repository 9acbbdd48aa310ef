//! All keys in Redis. The keys of a hook share a hash tag, so that a cluster keeps them on one node.

use std::fmt;

use hookline_shared::event::DeliveryId;
use uuid::Uuid;

/// The first field is the hook, if there is one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key<'a> {
    /// Bitmap of neighbouring events: the second they were stored in, and its number.
    Near(&'a str, u64, u64),
    /// Bitmap of one delivery whose event has an id from its publisher.
    Alone(&'a str, DeliveryId),
    Circuit(&'a str),
    /// Lock of the worker whose attempt probes the circuit.
    Probe(&'a str),
    Rate(&'a str),
    /// The next free slot for deferred deliveries.
    Slot(&'a str),
    /// The delivery about a subject that was made last.
    Snooze(&'a str, &'a str),
    /// The one in flight.
    SnoozeNow(&'a str, &'a str),
    /// The value of a watched key in the delivery that was made last.
    Change(&'a str, &'a str),
    /// The one in flight.
    ChangeNow(&'a str, &'a str),
    /// Written to probe the server that holds the hook.
    Health(&'a str),
    Workers,
    Turn(&'a str),
    /// How often messages of a stream were started without an end.
    Started(&'a str),
    /// The id of the cluster that this Redis belongs to.
    Cluster,
    /// Left for another dispatcher.
    Sign(Uuid),
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Near(hook, second, number) => {
                write!(f, "hookline:{{{hook}}}:p:{second}:{number}")
            }
            Self::Alone(hook, delivery) => write!(f, "hookline:{{{hook}}}:d:{delivery}"),
            Self::Circuit(hook) => write!(f, "hookline:{{{hook}}}:circuit"),
            Self::Probe(hook) => write!(f, "hookline:{{{hook}}}:probe"),
            Self::Rate(hook) => write!(f, "hookline:{{{hook}}}:rate"),
            Self::Slot(hook) => write!(f, "hookline:{{{hook}}}:slot"),
            Self::Snooze(hook, about) => write!(f, "hookline:{{{hook}}}:s:{about}"),
            Self::SnoozeNow(hook, about) => write!(f, "hookline:{{{hook}}}:sn:{about}"),
            Self::Change(hook, watched) => write!(f, "hookline:{{{hook}}}:c:{watched}"),
            Self::ChangeNow(hook, watched) => write!(f, "hookline:{{{hook}}}:cn:{watched}"),
            Self::Health(hook) => write!(f, "hookline:{{{hook}}}:health"),
            Self::Workers => f.write_str("hookline:workers"),
            Self::Turn(what) => write!(f, "hookline:turn:{what}"),
            Self::Started(stream) => write!(f, "hookline:started:{stream}"),
            Self::Cluster => f.write_str("hookline:cluster"),
            Self::Sign(sign) => write!(f, "hookline:sign:{sign}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hookline_shared::event::{Event, EventId};

    use super::*;

    #[test]
    fn keys_of_different_kinds_differ() {
        let id = EventId::given("1");
        let event = Event::parse_with_id("hookline.events.a.b.c", None, "{}".into(), id);
        let delivery = DeliveryId::new(&event.expect("an event"), "hook");
        let keys = [
            Key::Near("hook", 1, 2),
            Key::Alone("hook", delivery),
            Key::Circuit("hook"),
            Key::Probe("hook"),
            Key::Rate("hook"),
            Key::Slot("hook"),
            Key::Snooze("hook", "a"),
            Key::SnoozeNow("hook", "a"),
            Key::Change("hook", "a"),
            Key::ChangeNow("hook", "a"),
            Key::Health("hook"),
            Key::Workers,
            Key::Turn("workers"),
            Key::Started("workers"),
            Key::Cluster,
            Key::Sign(Uuid::nil()),
        ];
        let texts: HashSet<_> = keys.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), keys.len());
    }
}
