//! Where the state of a delivery is in Redis. Deliveries of a hook whose events are neighbours in the stream share
//! a bitmap, which is one key, so that one call handles many of them.

use hookline_shared::event::{DeliveryId, EventId, Stored};

use crate::redis::keys::Key;

/// Deliveries per bitmap. A bitmap with a single delivery costs as much as any key, a full one hardly more.
const SIZE: u64 = 128;

/// A bitmap of one hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bitmap {
    /// Neighbouring events stored in the same second: a recreated stream counts from 1 again, but not within a
    /// second.
    Near { second: u64, number: u64 },
    /// A delivery whose event has an id from its publisher.
    Alone(DeliveryId),
}

impl Bitmap {
    /// The bitmap of a delivery, and the offset in it.
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

/// A set of deliveries of a bitmap. The first is the highest bit, as Redis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bits(u128);

impl Bits {
    pub(super) fn of(offset: u8) -> Self {
        Self(1 << (SIZE - 1) >> offset)
    }

    /// From a script's answer.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether they intersect.
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
    fn only_events_without_an_id_from_their_publisher_share_a_bitmap() {
        assert_ne!(of(EventId::given("1-2")).0, of(EventId::given("1-3")).0);
        let first = of(EventId::stored(SIZE, 5 * SECOND));
        let bitmap = |second, number| Bitmap::Near { second, number };
        assert_eq!(first, (bitmap(5, 1), 0));
        let last = of(EventId::stored(2 * SIZE - 1, 6 * SECOND - 1));
        assert_eq!(last, (bitmap(5, 1), SIZE as u8 - 1));
    }

    #[test]
    fn a_recreated_stream_has_other_bitmaps() {
        let bitmap = |time| of(EventId::stored(1, time)).0;
        assert_ne!(bitmap(5 * SECOND), bitmap(6 * SECOND));
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
