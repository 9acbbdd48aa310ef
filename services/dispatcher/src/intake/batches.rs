//! Groups deliveries by what is claimed in one call.

use std::collections::HashMap;
use std::sync::Arc;

use crate::claims;

/// Bytes of events that are read before the task yields,
const READ_AT_ONCE: usize = 256 << 10;
/// and what a delivery adds to them.
const DELIVERY_WEIGHT: usize = 512;

/// Hands over batches of at most [`claims::MOST`] deliveries.
pub(super) struct Batches<D, F> {
    /// See [`claims::Claims::groups`].
    groups: usize,
    batches: HashMap<Batch, Vec<D>>,
    /// In bytes, see [`READ_AT_ONCE`].
    weight: usize,
    hand_over: F,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Batch {
    /// Of one hook, whose claims may take longer than others, or whose part of Redis may be away.
    Hook(Arc<str>),
    /// Of all other hooks.
    All,
}

impl<D, F: Fn(Vec<D>)> Batches<D, F> {
    pub(super) fn new(groups: usize, hand_over: F) -> Self {
        Self {
            groups,
            batches: HashMap::new(),
            weight: 0,
            hand_over,
        }
    }

    /// `is_plain`: the hook has no rate limit or marks.
    pub(super) fn add(&mut self, hook: &Arc<str>, is_plain: bool, delivery: D) {
        self.weight += DELIVERY_WEIGHT;
        let batch = if is_plain && self.groups == 1 {
            Batch::All
        } else {
            Batch::Hook(Arc::clone(hook))
        };
        let deliveries = self.batches.entry(batch).or_default();
        deliveries.push(delivery);
        if deliveries.len() == claims::MOST {
            let deliveries = std::mem::take(deliveries);
            (self.hand_over)(deliveries);
        }
    }

    /// Before an event of this size is read: after many bytes, hands over and yields.
    pub(super) async fn pause_before(&mut self, bytes: usize) {
        if self.weight > READ_AT_ONCE {
            self.hand_over_all();
            tokio::task::yield_now().await;
        }
        self.weight += bytes;
    }

    pub(super) fn hand_over_all(&mut self) {
        self.weight = 0;
        for (_, deliveries) in std::mem::take(&mut self.batches) {
            if !deliveries.is_empty() {
                (self.hand_over)(deliveries);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Returns the batches of deliveries: each has its hook, and whether the hook is plain.
    fn batches(groups: usize, deliveries: &[(&'static str, bool)]) -> Vec<Vec<&'static str>> {
        let handed_over = RefCell::new(Vec::new());
        let mut batches = Batches::new(groups, |batch| handed_over.borrow_mut().push(batch));
        for (hook, is_plain) in deliveries {
            batches.add(&Arc::from(*hook), *is_plain, *hook);
        }
        batches.hand_over_all();
        batches.hand_over_all();
        let mut handed_over = handed_over.take();
        handed_over.sort();
        handed_over
    }

    #[test]
    fn plain_hooks_share_a_batch_and_others_have_their_own() {
        let deliveries = [
            ("a", true),
            ("b", true),
            ("limited", false),
            ("snoozing", false),
            ("limited", false),
            ("a", true),
        ];
        let want = [vec!["a", "b", "a"], vec!["limited"; 2], vec!["snoozing"]];
        assert_eq!(batches(1, &deliveries), want);
    }

    #[test]
    fn in_a_cluster_each_hook_has_its_own_batch() {
        let deliveries = [("a", true), ("b", true), ("a", true)];
        assert_eq!(batches(64, &deliveries), [vec!["a"; 2], vec!["b"]]);
    }

    #[test]
    fn a_batch_is_no_larger_than_a_call_of_the_claims() {
        let all = batches(1, &[("a", true); 2 * claims::MOST + 1]);
        let lengths: Vec<_> = all.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, claims::MOST, claims::MOST]);
        assert_eq!(batches(1, &[("a", true); claims::MOST]).len(), 1);
    }

    #[tokio::test]
    async fn many_bytes_are_handed_over_before_more_are_read() {
        let handed_over = RefCell::new(Vec::new());
        let mut batches = Batches::new(1, |batch: Vec<_>| handed_over.borrow_mut().extend(batch));
        let hook = Arc::from("a");
        batches.pause_before(READ_AT_ONCE - DELIVERY_WEIGHT).await;
        batches.add(&hook, true, 1);
        batches.pause_before(1).await;
        assert!(handed_over.borrow().is_empty());
        batches.pause_before(1).await;
        assert_eq!(*handed_over.borrow(), [1]);
        batches.add(&hook, true, 2);
        batches.pause_before(1).await;
        assert_eq!(*handed_over.borrow(), [1], "it counts from zero again");
    }
}
