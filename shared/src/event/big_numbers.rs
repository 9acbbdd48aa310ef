//! Numbers beyond 64-bit floating point, such as `1e400`. They are JSON, but parsers refuse them.

use bytes::Bytes;

/// The largest that there is.
const LARGEST: &str = "1.7976931348623157e308";

/// The same JSON with the largest number, or the least, for each that is beyond. `None`: there is none.
pub(super) fn replaced(json: &[u8]) -> Option<Bytes> {
    let (mut copy, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = end_of_string(json, at),
            b'-' | b'0'..=b'9' => {
                let end = end_of_number(json, at);
                let number = std::str::from_utf8(&json[at..end]).ok()?;
                if number.parse().is_ok_and(f64::is_infinite) {
                    copy.extend_from_slice(&json[copied..at]);
                    copy.extend(number.strip_prefix('-').map(|_| b'-'));
                    copy.extend_from_slice(LARGEST.as_bytes());
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    (copied > 0).then(|| {
        copy.extend_from_slice(&json[copied..]);
        copy.into()
    })
}

fn end_of_string(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn end_of_number(json: &[u8], start: usize) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    let length = json[start..].iter().position(|byte| !is_part(byte));
    length.map_or(json.len(), |length| start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_are_beyond_are_replaced() {
        let digits = "9".repeat(400);
        for (json, want) in [
            (
                r#"{"a":1e400}"#.to_owned(),
                Some(format!("{{\"a\":{LARGEST}}}")),
            ),
            (
                r#"[-1E+999, 1, "1e999", "\"1e999"]"#.to_owned(),
                Some(format!(r#"[-{LARGEST}, 1, "1e999", "\"1e999"]"#)),
            ),
            (digits, Some(LARGEST.to_owned())),
            (r#"{"a":[1e308,-0,1e-999],"b":"#.to_owned(), None),
            (r#""\"#.to_owned(), None),
            ("1e999e".to_owned(), None),
            (String::new(), None),
        ] {
            let got = replaced(json.as_bytes());
            let got = got.map(|got| String::from_utf8_lossy(&got).into_owned());
            assert_eq!(got, want, "{json}");
        }
    }
}
