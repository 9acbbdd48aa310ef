//! Where the state of a delivery stands in Redis. Deliveries of a hook whose events stand near each
//! other in the stream share a bitmap, one key, so that one call sees to many of them.

use hookline_shared::event::{DeliveryId, EventId, Stored};

use crate::redis::keys::Key;

/// Deliveries of a bitmap. One that is alone in its page costs as much as a key would, and all of them
/// together hardly more.
const SIZE: u64 = 128;

/// A page of one hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bitmap {
    /// Events that stand near each other and were stored in the same second: a stream that is made anew
    /// counts from 1 again, but not within a second.
    Near { second: u64, number: u64 },
    /// One whose event is not known by its place in the stream.
    Alone(DeliveryId),
}

impl Bitmap {
    /// The page of a delivery of an event, and its place in there.
    pub(super) fn of(event: &EventId, delivery: DeliveryId) -> (Self, u8) {
        let place = event.place().and_then(|Stored { sequence, time }| {
            let second = u64::try_from(time / 1_000_000_000).ok()?;
            let number = sequence / SIZE;
            Some((Self::Near { second, number }, (sequence % SIZE) as u8))
        });
        place.unwrap_or((Self::Alone(delivery), 0))
    }

    pub(super) fn key(self, hook: &str) -> Key<'_> {
        match self {
            Self::Near { second, number } => Key::Near(hook, second, number),
            Self::Alone(delivery) => Key::Alone(hook, delivery),
        }
    }
}

/// Some deliveries of a bitmap: the first is the highest bit, as Redis counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bits(u128);

impl Bits {
    /// The one at that place.
    pub(super) fn of(offset: u8) -> Self {
        Self(1 << (SIZE - 1) >> offset)
    }

    /// What a script answered.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether they have some in common.
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use hookline_shared::event::Event;

    use super::*;

    const SECOND: i128 = 1_000_000_000;

    fn of(id: EventId) -> (Bitmap, u8) {
        let event = Event::parse_with_id("hookline.events.a.b.c", None, "{}".into(), id);
        let event = event.expect("an event");
        Bitmap::of(&event.id, DeliveryId::new(&event, "hook"))
    }

    #[test]
    fn only_events_that_are_known_by_their_place_share_a_page() {
        assert_ne!(of(EventId::given("1-2")).0, of(EventId::given("1-3")).0);
        let first = of(EventId::stored(SIZE, 5 * SECOND));
        let page = |second, number| Bitmap::Near { second, number };
        assert_eq!(first, (page(5, 1), 0));
        let last = of(EventId::stored(2 * SIZE - 1, 6 * SECOND - 1));
        assert_eq!(last, (page(5, 1), SIZE as u8 - 1));
    }

    #[test]
    fn a_stream_that_is_made_anew_has_other_pages() {
        let page = |time| of(EventId::stored(1, time)).0;
        assert_ne!(page(5 * SECOND), page(6 * SECOND));
    }

    #[test]
    fn the_first_is_the_highest_bit() {
        let mut set = Bits::of(0);
        set.add(Bits::of(127));
        let mut bytes = [0; 16];
        (bytes[0], bytes[15]) = (0x80, 0x01);
        assert_eq!(set.bytes(), bytes);
        assert_eq!(Bits::read(&bytes), Some(set));
        assert!(set.meets(Bits::of(127)) && !set.meets(Bits::of(1)));
        assert_eq!(Bits::read(b"short"), None);
    }
}
