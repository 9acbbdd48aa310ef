//! Parsers and defaults of settings that both services have.

use std::time::Duration;

pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; examples of durations: 500ms, 15s, 2m"))
}

/// The default name of a process: the host's, or `otherwise` if the host has none, with a port that no other process of
/// the host has.
#[must_use]
pub fn node_name(otherwise: &str, port: u16) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => otherwise,
        host => host,
    };
    match port {
        // Any: only the process is known.
        0 => format!("{host}-{}", std::process::id()),
        port => format!("{host}-{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "5", "-1s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
