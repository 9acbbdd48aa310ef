//! Digests of JSON text. The order of an object's keys does not count; numbers are compared by their text, since those
//! beyond 64 bits have no other form here.
//!
//! The text was parsed before, so it is JSON, nested at most 128 deep. Anything else has some digest.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hookline_shared::signature::hex;
use sha2::{Digest as _, Sha256};

/// Far beyond what the parser lets through.
const DEEPEST: usize = 256;

type Key<'a> = Cow<'a, [u8]>;
type Hash = [u8; 32];

/// Of several parts.
#[derive(Default)]
pub(super) struct Digest(Sha256);

impl Digest {
    pub(super) fn text(mut self, text: &str) -> Self {
        add(&mut self.0, b't', text.as_bytes());
        self
    }

    pub(super) fn json(self, json: &[u8]) -> Self {
        self.json_without(json, "")
    }

    /// Without a key of the outermost object.
    pub(super) fn json_without(mut self, json: &[u8], key: &str) -> Self {
        let mut reader = Reader {
            rest: json,
            depth: 0,
        };
        self.0.update(reader.value(key.as_bytes()));
        self
    }

    pub(super) fn hex(self) -> String {
        hex(&self.0.finalize()[..16])
    }
}

/// The fields of an object, as JSON; none of another value. The last one of equal keys counts.
pub(super) fn fields(json: &[u8]) -> BTreeMap<Key<'_>, &[u8]> {
    let mut reader = Reader {
        rest: json,
        depth: 0,
    };
    let mut fields = BTreeMap::new();
    reader.space();
    if reader.take(b'{') {
        while !reader.is_over(b'}') {
            let key = reader.string();
            reader.between(b':');
            fields.insert(key, reader.skipped());
            reader.between(b',');
        }
    }
    fields
}

fn add(hash: &mut Sha256, kind: u8, text: &[u8]) {
    hash.update([kind]);
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Reads a value. `without`: a key that is left out if it is an object.
    fn value(&mut self, without: &[u8]) -> Hash {
        let mut hash = Sha256::new();
        self.space();
        self.depth += 1;
        match self.rest.first() {
            Some(b'{') if self.depth <= DEEPEST => {
                self.take(b'{');
                let mut fields = BTreeMap::new();
                while !self.is_over(b'}') {
                    let key = self.string();
                    self.between(b':');
                    let value = self.value(b"");
                    self.between(b',');
                    if without.is_empty() || *key != *without {
                        fields.insert(key, value);
                    }
                }
                hash.update(b"{");
                for (key, value) in fields {
                    add(&mut hash, b'k', &key);
                    hash.update(value);
                }
            }
            Some(b'[') if self.depth <= DEEPEST => {
                self.take(b'[');
                hash.update(b"[");
                while !self.is_over(b']') {
                    hash.update(self.value(b""));
                    self.between(b',');
                }
            }
            Some(b'"') => add(&mut hash, b's', &self.string()),
            _ => add(&mut hash, b'v', self.word()),
        }
        self.depth -= 1;
        hash.finalize().into()
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
    fn string(&mut self) -> Key<'a> {
        self.space();
        if self.rest.first() != Some(&b'"') {
            return Key::default();
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
            return Key::Borrowed(&quoted[1..quoted.len().saturating_sub(1).max(1)]);
        }
        // Half of a surrogate pair is no text.
        match serde_json::from_slice::<String>(quoted) {
            Ok(text) => Key::Owned(text.into_bytes()),
            Err(_) => Key::Borrowed(quoted),
        }
    }

    /// Reads a number, `true`, `false` or `null`: at least one byte, if there is one.
    fn word(&mut self) -> &'a [u8] {
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

    fn take(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Passes over what stands between two parts.
    fn between(&mut self, byte: u8) {
        self.space();
        self.take(byte);
    }

    /// Whether an object or a list, or the text, ends here. Passes over the end.
    fn is_over(&mut self, end: u8) -> bool {
        self.space();
        self.take(end) || self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> String {
        Digest::default().json(json.as_bytes()).hex()
    }

    #[test]
    fn spelling_and_order_do_not_count() {
        let want = of(r#"{"a":[1,{"b":null}],"c":"é\n"}"#);
        for same in [
            "{ \"c\" : \"\\u00e9\\n\",\n \"a\" : [ 1 , { \"b\" : null } ] }",
            r#"{"a":2,"c":"\u00e9\u000a","a":[1,{"b":null}]}"#,
        ] {
            assert_eq!(of(same), want, "{same}");
        }
    }

    #[test]
    fn everything_else_counts() {
        let texts = [
            "{}",
            "[]",
            "\"\"",
            "null",
            "0",
            "\"null\"",
            "[null]",
            "[[]]",
            "[{}]",
            "{\"a\":{}}",
            "{\"a\":[]}",
            "[1,2]",
            "[2,1]",
            "[12]",
            "[[1],2]",
            "[[1,2]]",
            "{\"a\":1}",
            "{\"a\":\"1\"}",
            "{\"b\":1}",
            "{\"a\":1,\"b\":1}",
            "1.0",
            "1",
            "1e0",
            "123456789012345678901",
            "123456789012345678902",
            "\"a\\ud83d\"",
            "\"a\\ud83e\"",
        ];
        let digests = std::collections::HashSet::from(texts.map(of));
        assert_eq!(digests.len(), texts.len());
    }

    #[test]
    fn fields_are_found_with_their_text() {
        let found = fields(br#" {"a": [1, {"}": "]"}] ,"b\u0031":"x\"}", "c":12e3} "#);
        let want: [(&[u8], &[u8]); 3] = [
            (b"a", br#"[1, {"}": "]"}]"#),
            (b"b1", br#""x\"}""#),
            (b"c", b"12e3"),
        ];
        let found: Vec<_> = found.iter().map(|(key, value)| (&**key, *value)).collect();
        assert_eq!(found, want);
        assert!(fields(b"[1]").is_empty() && fields(b"").is_empty());
    }

    #[test]
    fn what_is_no_json_ends_too() {
        let pieces = [
            "{", "}", "[", "]", "\"", "\\", ",", ":", "a", " ", "1", "\u{e9}",
        ];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    let text = format!("{first}{second}{third}");
                    let _ = (of(&text), fields(text.as_bytes()));
                    let _ = of(&text.repeat(300));
                }
            }
        }
    }
}
