//! Built-in event metadata.

/// The fields by which events of a kind differ, as Kong's `/event-hooks/sources` lists them under `unique`.
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
