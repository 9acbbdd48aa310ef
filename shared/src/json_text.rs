//! JSON as text: fields with their spelling, so that numbers stay as they were published.
//!
//! The text was parsed before, so it is JSON, nested at most 128 deep. Anything else gives something, and an end.

use std::borrow::Cow;

/// A decoded string.
pub type Text<'a> = Cow<'a, [u8]>;

/// A field of an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub key: Text<'a>,
    /// As JSON.
    pub value: &'a [u8],
    /// Key and value, as written.
    pub text: &'a [u8],
}

/// The fields of an object, in order; none of another value.
pub fn fields(json: &[u8]) -> Vec<Field<'_>> {
    let mut reader = Reader::new(json);
    let mut fields = Vec::new();
    reader.space();
    if reader.take(b'{') {
        while !reader.is_over(b'}') {
            let start = reader.rest;
            let key = reader.string();
            reader.between(b':');
            let value = reader.skipped();
            let text = &start[..start.len() - reader.rest.len()];
            fields.push(Field { key, value, text });
            reader.between(b',');
        }
    }
    fields
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(json: &'a [u8]) -> Self {
        Self { rest: json }
    }

    /// The next byte that is not white space.
    pub fn peek(&mut self) -> Option<u8> {
        self.space();
        self.rest.first().copied()
    }

    /// Passes over a value.
    fn skipped(&mut self) -> &'a [u8] {
        self.space();
        let (start, mut open) = (self.rest, 0_usize);
        loop {
            match self.rest.first() {
                None => break,
                Some(b'"') => drop(self.string()),
                Some(b'{' | b'[') => {
                    open += 1;
                    self.rest = &self.rest[1..];
                }
                Some(b'}' | b']') => {
                    open = open.saturating_sub(1);
                    self.rest = &self.rest[1..];
                }
                Some(b',' | b':' | b' ' | b'\t' | b'\r' | b'\n') => self.rest = &self.rest[1..],
                Some(_) => drop(self.word()),
            }
            if open == 0 {
                break;
            }
        }
        &start[..start.len() - self.rest.len()]
    }

    /// Reads a string; of anything else, nothing.
    pub fn string(&mut self) -> Text<'a> {
        self.space();
        if self.rest.first() != Some(&b'"') {
            return Text::default();
        }
        let (mut end, mut is_plain) = (1, true);
        while end < self.rest.len() && self.rest[end] != b'"' {
            let is_escape = self.rest[end] == b'\\';
            is_plain &= !is_escape;
            end += if is_escape { 2 } else { 1 };
        }
        let (quoted, rest) = self.rest.split_at((end + 1).min(self.rest.len()));
        self.rest = rest;
        if is_plain {
            return Text::Borrowed(&quoted[1..quoted.len().saturating_sub(1).max(1)]);
        }
        // Half of a surrogate pair is no text.
        match serde_json::from_slice::<String>(quoted) {
            Ok(text) => Text::Owned(text.into_bytes()),
            Err(_) => Text::Borrowed(quoted),
        }
    }

    /// Reads a number, `true`, `false` or `null`: at least one byte, if there is one.
    pub fn word(&mut self) -> &'a [u8] {
        let is_end = |byte: &u8| {
            matches!(byte, b',' | b':' | b'}' | b']' | b'"' | b'{' | b'[')
                || byte.is_ascii_whitespace()
        };
        let end = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end.max(1).min(self.rest.len()));
        self.rest = rest;
        word
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    pub fn take(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Passes over what stands between two parts.
    pub fn between(&mut self, byte: u8) {
        self.space();
        self.take(byte);
    }

    /// Whether an object or a list, or the text, ends here. Passes over the end.
    pub fn is_over(&mut self, end: u8) -> bool {
        self.space();
        self.take(end) || self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_their_text() {
        let found = fields(br#" {"a": [1, {"}": "]"}] ,"b\u0031":"x\"}", "c":12e3} "#);
        let want: [(&[u8], &[u8]); 3] = [
            (b"a", br#"[1, {"}": "]"}]"#),
            (b"b1", br#""x\"}""#),
            (b"c", b"12e3"),
        ];
        assert_eq!(found[0].text, br#""a": [1, {"}": "]"}]"#);
        let found: Vec<_> = found
            .iter()
            .map(|field| (&*field.key, field.value))
            .collect();
        assert_eq!(found, want);
        assert!(fields(b"[1]").is_empty() && fields(b"").is_empty());
    }
}
