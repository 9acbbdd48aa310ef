//! Idempotency keys whose events were stored lately. What another node stored, or what is older, dispatchers know.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::login::Refused;
use crate::store::Raised;

/// Keys that are remembered, the last ones.
const KEYS: usize = 65_536;
/// How long. Beyond that Redis knows, by the dispatchers' own window.
const REMEMBERED: Duration = Duration::from_secs(120);
/// How long a request waits for another with the same key.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Repeats {
    known: Mutex<Known>,
    /// Keys whose events are being stored.
    in_hand: Mutex<HashSet<String>>,
    done: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// The digest of the data, and when it was stored.
    ids: HashMap<String, (u64, Instant)>,
    in_order: VecDeque<String>,
}

/// Held while events with keys are stored: nobody else stores any with the same.
pub(super) struct Turn<'a> {
    of: &'a Repeats,
    ids: Vec<String>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut in_hand = self.of.in_hand.lock();
        for id in &self.ids {
            in_hand.remove(id);
        }
        drop(in_hand);
        self.of.done.notify_waiters();
    }
}

/// New ones, and those that are known.
pub(super) type Divided<'a> = (Vec<&'a Raised>, Vec<&'a Raised>);

/// Of an event's data.
fn digest(data: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(data)
}

impl Repeats {
    /// Waits for others with the same keys.
    pub(super) async fn turn<'a>(
        &self,
        events: impl Iterator<Item = &'a Raised>,
    ) -> Result<Turn<'_>, Refused> {
        let ids: HashSet<String> = events.map(|event| event.id.clone()).collect();
        let free = async {
            loop {
                let done = self.done.notified();
                let mut done = std::pin::pin!(done);
                done.as_mut().enable();
                if self.take(&ids) {
                    return;
                }
                done.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, free).await;
        waited.map_err(|_| Refused::Unsure)?;
        let ids = ids.into_iter().collect();
        Ok(Turn { of: self, ids })
    }

    fn take(&self, ids: &HashSet<String>) -> bool {
        let mut in_hand = self.in_hand.lock();
        let is_free = ids.iter().all(|id| !in_hand.contains(id));
        if is_free {
            in_hand.extend(ids.iter().cloned());
        }
        is_free
    }

    /// Those that are new, and those that are there already: by their keys, or twice among these.
    pub(super) fn divide<'a>(&self, events: &'a [Raised]) -> Result<Divided<'a>, Refused> {
        let mut seen = HashMap::new();
        let (mut new, mut known) = (Vec::new(), Vec::new());
        for event in events {
            let data = digest(&event.data);
            let lately = self.data_of(&event.id).filter(|_| event.is_key);
            match lately.or_else(|| seen.get(event.id.as_str()).copied()) {
                None => {
                    seen.insert(event.id.as_str(), data);
                    new.push(event);
                }
                Some(earlier) if earlier == data => known.push(event),
                Some(_) => return Err(Refused::OtherData),
            }
        }
        Ok((new, known))
    }

    /// The digest of the data that was stored lately with this id.
    fn data_of(&self, id: &str) -> Option<u64> {
        let known = self.known.lock();
        let (data, at) = known.ids.get(id)?;
        (at.elapsed() < REMEMBERED).then_some(*data)
    }

    pub(super) fn remember(&self, event: &Raised) {
        let mut known = self.known.lock();
        let entry = (digest(&event.data), Instant::now());
        if known.ids.insert(event.id.clone(), entry).is_none() {
            known.in_order.push_back(event.id.clone());
        }
        if known.in_order.len() > KEYS
            && let Some(oldest) = known.in_order.pop_front()
        {
            known.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Raised {
        Raised {
            id: id.to_owned(),
            is_key: true,
            node: String::new(),
            source: "s".to_owned(),
            name: "e".to_owned(),
            data: id.to_owned().into(),
            traceparent: None,
        }
    }

    #[test]
    fn the_last_keys_are_remembered() {
        let repeats = Repeats::default();
        for number in 0..KEYS + 10 {
            repeats.remember(&event(&number.to_string()));
        }
        repeats.remember(&event("12"));
        assert_eq!(repeats.data_of("9"), None);
        assert_eq!(repeats.data_of("10"), Some(digest(b"10")));
        assert_eq!(repeats.known.lock().ids.len(), KEYS);
    }

    #[tokio::test]
    async fn requests_with_the_same_key_take_turns_and_no_others_wait() {
        let repeats = Repeats::default();
        let [one, two] = [event("1"), event("2")];
        let first = repeats
            .turn([&one, &two].into_iter())
            .await
            .expect("a turn");
        repeats
            .turn([&event("3")].into_iter())
            .await
            .expect("a turn");
        let soon = Duration::from_millis(50);
        let waits = tokio::time::timeout(soon, repeats.turn([&two].into_iter())).await;
        assert!(waits.is_err());
        drop(first);
        repeats.turn([&two].into_iter()).await.expect("a turn");
        assert!(repeats.in_hand.lock().is_empty());
    }
}
