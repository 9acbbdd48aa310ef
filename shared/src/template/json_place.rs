//! Where in a JSON text a template writes its values: known from the text between its tags.

/// What the JSON text before a place makes of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonPlace {
    /// A value, or what separates values.
    Outside,
    InString,
    /// A backslash needs its next character.
    Escape,
    /// `\u` needs this many more digits.
    Digits(u8),
}

impl JsonPlace {
    /// The place after some text.
    pub(super) fn after(self, text: &str) -> Self {
        text.chars().fold(self, Self::next)
    }

    fn next(self, char: char) -> Self {
        match (self, char) {
            (Self::Outside, '"') => Self::InString,
            (Self::Outside, _) | (Self::InString, '"') => Self::Outside,
            (Self::InString, '\\') => Self::Escape,
            (Self::Escape, 'u') => Self::Digits(4),
            (Self::Digits(left @ 2..), digit) if digit.is_ascii_hexdigit() => {
                Self::Digits(left - 1)
            }
            (Self::Digits(_), '"') => Self::Outside,
            (Self::Digits(_), '\\') => Self::Escape,
            (Self::InString | Self::Escape | Self::Digits(_), _) => Self::InString,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::JsonPlace::{self, *};

    #[test]
    fn quotes_and_escapes_are_followed() {
        for (text, place) in [
            ("", Outside),
            (r#"{"a": "#, Outside),
            (r#"{"a"#, InString),
            (r#"{"a\""#, InString),
            (r#"{"a\\""#, Outside),
            (r#"{"a\"#, Escape),
            (r#"{"\u00"#, Digits(2)),
            (r#"{"\u00e9"#, InString),
            (r#"{"\u00""#, Outside),
            (r#"{"a": "\u000a"}"#, Outside),
        ] {
            assert_eq!(JsonPlace::Outside.after(text), place, "{text}");
        }
    }
}
