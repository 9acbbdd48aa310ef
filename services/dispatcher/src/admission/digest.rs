//! Digests of JSON text. The order of an object's keys does not count; numbers are compared by their text, since those
//! beyond 64 bits have no other form here.

use std::collections::BTreeMap;

use hookline_shared::signature::hex;
use sha2::{Digest as _, Sha256};

use hookline_shared::json_text::Reader;

/// Far beyond what the parser lets through.
const DEEPEST: usize = 256;

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
        let mut reader = Reader::new(json);
        self.0.update(value(&mut reader, 0, key.as_bytes()));
        self
    }

    pub(super) fn hex(self) -> String {
        hex(&self.0.finalize()[..16])
    }
}

/// Reads a value. `without`: a key that is left out if it is an object.
fn value(reader: &mut Reader<'_>, depth: usize, without: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    match reader.peek() {
        Some(b'{') if depth < DEEPEST => {
            reader.take(b'{');
            let mut fields = BTreeMap::new();
            while !reader.is_over(b'}') {
                let key = reader.string();
                reader.between(b':');
                let value = value(reader, depth + 1, b"");
                reader.between(b',');
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
        Some(b'[') if depth < DEEPEST => {
            reader.take(b'[');
            hash.update(b"[");
            while !reader.is_over(b']') {
                hash.update(value(reader, depth + 1, b""));
                reader.between(b',');
            }
        }
        Some(b'"') => add(&mut hash, b's', &reader.string()),
        _ => add(&mut hash, b'v', reader.word()),
    }
    hash.finalize().into()
}

fn add(hash: &mut Sha256, kind: u8, text: &[u8]) {
    hash.update([kind]);
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
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
    fn what_is_no_json_ends_too() {
        let pieces = [
            "{", "}", "[", "]", "\"", "\\", ",", ":", "a", " ", "1", "\u{e9}",
        ];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    let text = format!("{first}{second}{third}");
                    let _ = (
                        of(&text),
                        hookline_shared::json_text::fields(text.as_bytes()),
                    );
                    let _ = of(&text.repeat(300));
                }
            }
        }
    }
}
