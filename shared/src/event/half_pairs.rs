//! Half of a surrogate pair, such as `\ud83d`. It is JSON, and JavaScript writes it for a text that was cut in the middle
//! of an emoji, but it is no Unicode text.

use bytes::Bytes;

const REPLACEMENT: &[u8; 4] = b"fffd";

/// The same JSON with U+FFFD for each half, which is as long. `None`: there is none.
pub(super) fn replaced(json: &[u8]) -> Option<Bytes> {
    let mut copy = None;
    let mut at = 0;
    while let Some(next) = json[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        match unit(json, at) {
            Some(0xd800..=0xdbff) if matches!(unit(json, at + 6), Some(0xdc00..=0xdfff)) => {
                at += 12
            }
            Some(0xd800..=0xdfff) => {
                let copy = copy.get_or_insert_with(|| json.to_vec());
                copy[at + 2..at + 6].copy_from_slice(REPLACEMENT);
                at += 6;
            }
            // Of any other escape the second character is part.
            _ => at = (at + 2).min(json.len()),
        }
    }
    copy.map(Bytes::from)
}

/// The UTF-16 unit of an escape that begins here.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let escape = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(escape).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_replaced_and_pairs_are_not() {
        for (json, want) in [
            (r#""a\ud83d""#, Some(r#""a\ufffd""#)),
            (r#""\ude00a""#, Some(r#""\ufffda""#)),
            (r#""\ud83d\ud83d\ude00""#, Some(r#""\ufffd\ud83d\ude00""#)),
            (r#""\uD83D\n\uDE00""#, Some(r#""\ufffd\n\ufffd""#)),
            (r#""\ude00\ud83d""#, Some(r#""\ufffd\ufffd""#)),
            (r#""\\\ud83d""#, Some(r#""\\\ufffd""#)),
            (r#""\ud83d\ude00""#, None),
            (r#""\\ud83d""#, None),
            (r#""\u00e9 \" \\""#, None),
            (r"\", None),
            (r"\ud8", None),
        ] {
            let got = replaced(json.as_bytes());
            assert_eq!(got.as_deref(), want.map(str::as_bytes), "{json}");
        }
    }
}
