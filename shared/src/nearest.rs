//! What somebody may have meant who wrote a name that does not exist.

/// As likely as a slip of the hand.
const LIKELY: f64 = 0.7;

/// The known name that is nearest, if one is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(name, known);
    let likely = known.into_iter().map(|known| (likeness(&known), known));
    let likely = likely.filter(|(likeness, _)| *likeness >= LIKELY);
    let nearest = likely.max_by(|(one, _), (other, _)| one.total_cmp(other));
    nearest.map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = [
            "crud",
            "dao:crud",
            "balancer",
            "consumers",
            "update",
            "upper",
        ];
        for (name, want) in [
            ("curd", Some("crud")),
            ("consmers", Some("consumers")),
            ("updat", Some("update")),
            ("uper", Some("upper")),
            ("balancre", Some("balancer")),
            ("payments", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), want, "{name}");
        }
    }
}
