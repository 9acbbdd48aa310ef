//! What is known of sources and events beforehand.

/// The fields that tell one event of a kind from another, as Kong's `/event-hooks/sources` lists
/// them under `unique`. Empty where there are none.
#[must_use]
pub fn unique(source: &str, event: &str) -> &'static [&'static str] {
    match (source, event) {
        (
            "rate-limiting-advanced" | "ai-rate-limiting-advanced" | "service-protection",
            "rate-limit-exceeded",
        ) => &["consumer", "ip", "service"],
        _ => &[],
    }
}
