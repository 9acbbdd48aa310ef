//! Claims that are made together, and deliveries that are done together: one round trip for many of a
//! hook, in which Redis looks at the hook's circuit and at each page of bits once.

use super::call::Call;
use super::lease::Claim;
use super::scripts::word;
use super::{Inner, KEEP, PROBE_LEASES, key, millis};
use crate::gate::Gate;

/// Deliveries of one call. Redis does nothing else meanwhile.
pub const MOST: usize = 128;

/// Deliveries by the page that they are in.
struct Pages<'a>(Vec<Vec<(usize, &'a Claim)>>);

impl<'a> Pages<'a> {
    fn new(claims: impl Iterator<Item = &'a Claim>) -> Self {
        let mut pages: Vec<Vec<(usize, &Claim)>> = Vec::new();
        for (index, claim) in claims.enumerate() {
            // What comes together mostly stands together.
            let page = pages.iter_mut().rfind(|page| page[0].1.is_beside(claim));
            match page {
                Some(page) => page.push((index, claim)),
                None => pages.push(vec![(index, claim)]),
            }
        }
        Self(pages)
    }

    /// How many keys they need.
    fn keys(&self) -> usize {
        2 * self.0.len()
    }

    fn add_keys_to(&self, call: &mut Call<'_>) {
        for page in &self.0 {
            page[0].1.add_keys_to(call);
        }
    }

    /// Adds how many there are, in all and in each page, and their fields and attempts.
    fn add_to(&self, call: &mut Call<'_>) {
        call.arg(self.0.iter().map(Vec::len).sum::<usize>());
        for page in &self.0 {
            call.arg(page.len());
        }
        for (_, claim) in self.all() {
            call.arg(claim.field());
        }
        for (_, claim) in self.all() {
            call.arg(claim.attempt);
        }
    }

    fn all(&self) -> impl Iterator<Item = (usize, &'a Claim)> {
        self.0.iter().flatten().copied()
    }

    /// Where one was that a script calls by its number, from 1.
    fn index(&self, number: usize) -> Option<usize> {
        let (index, _) = self.all().nth(number.checked_sub(1)?)?;
        Some(index)
    }
}

impl Inner {
    /// Claims deliveries of a hook that has neither limits nor marks, at most [`MOST`]: for each of them
    /// a word and a number.
    pub(super) async fn claim_together(
        &self,
        hook: &str,
        gate: &Gate,
        claims: &[Claim],
    ) -> Option<Vec<(u8, u64)>> {
        let token = claims.first().map_or("", |claim| &claim.token);
        let pages = Pages::new(claims.iter());
        let mut call = Call::new(&self.scripts.claims, 2 + pages.keys());
        call.arg(key(hook, "circuit")).arg(key(hook, "probe"));
        pages.add_keys_to(&mut call);
        call.arg(millis(self.options.lease))
            .arg(millis(self.options.window + KEEP))
            .arg(gate.revision)
            .arg(millis(self.options.lease * PROBE_LEASES))
            .arg(token);
        pages.add_to(&mut call);
        let others: Vec<(usize, u8, u64)> = self.redis.call(hook, &call).await?;
        let mut answers = vec![(word::ATTEMPT, 0); claims.len()];
        for (number, word, value) in others {
            answers[pages.index(number)?] = (word, value);
        }
        Some(answers)
    }

    /// Says that deliveries of a hook are done that were no probes and have no marks, at most [`MOST`]:
    /// which of them were another worker's.
    pub(super) async fn done_together(&self, hook: &str, claims: &[&Claim]) -> Option<Vec<usize>> {
        let pages = Pages::new(claims.iter().copied());
        let mut call = Call::new(&self.scripts.done, pages.keys());
        pages.add_keys_to(&mut call);
        call.arg(millis(self.options.window));
        pages.add_to(&mut call);
        for (_, claim) in pages.all() {
            call.arg(&*claim.token);
        }
        let others: Vec<usize> = self.redis.call(hook, &call).await?;
        others
            .into_iter()
            .map(|number| pages.index(number))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use hookline_shared::event::EventId;

    use super::*;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn what_a_script_numbers_page_by_page_is_found_again() {
        let ids = [
            EventId::stored(1, SECOND),
            EventId::given("one"),
            EventId::stored(1_000, SECOND),
            EventId::stored(2, SECOND),
            EventId::given("two"),
            EventId::given("one"),
        ];
        let claims = (0..).zip(ids).map(|(number, id)| Claim::sample(number, id));
        let claims: Vec<_> = claims.collect();
        let pages = Pages::new(claims.iter());
        let sizes: Vec<_> = pages.0.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 1, 1], "two of one page, and one twice");
        let order = (1..=claims.len()).map(|number| pages.index(number));
        let order: Vec<_> = order.map(Option::unwrap_or_default).collect();
        assert_eq!(order, [0, 3, 1, 5, 2, 4]);
        let sent: Vec<_> = pages.all().map(|(_, claim)| claim.number).collect();
        assert_eq!(sent, [0, 3, 1, 5, 2, 4], "as its arguments stand");
        assert_eq!((pages.index(0), pages.index(7)), (None, None));
    }
}
