//! What the NATS client can read. It closes its connection, or panics, at anything else.

/// Why a stored message cannot be read: a part of a sentence.
pub(super) type Reason = &'static str;

/// How a message reaches a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As it is, through a consumer.
    Pulled,
    /// Through a direct get, for which the server adds headers to it.
    Copied,
}

/// `headers`: the block as stored. `subject`: bytes that are no UTF-8 are U+FFFD.
pub(super) fn check(subject: &str, headers: &[u8], way: Way) -> Result<(), Reason> {
    if subject.contains('\u{fffd}') {
        return Err("its subject is not UTF-8");
    }
    let has_headers = way == Way::Copied || !headers.is_empty();
    if has_headers && subject.contains(char::is_whitespace) {
        return Err("its subject holds white space");
    }
    if headers.is_empty() {
        return Ok(());
    }
    block(headers)?;
    if way == Way::Copied {
        let kept = headers.len().saturating_sub(2);
        block(&[&headers[..kept], b"Nats-Stream: S\r\n\r\n"].concat())?;
    }
    Ok(())
}

fn block(headers: &[u8]) -> Result<(), Reason> {
    let text = std::str::from_utf8(headers).map_err(|_| "its headers are not UTF-8")?;
    let mut lines = text.lines().peekable();
    let version = lines.next().unwrap_or_default();
    let status = version
        .strip_prefix("NATS/1.0")
        .ok_or("its headers do not begin with NATS/1.0")?;
    let code = status.trim().split(' ').next().unwrap_or_default();
    let is_code = code.len() == 3 && code.parse::<u16>().is_ok_and(|code| code >= 100);
    if !code.is_empty() && !is_code {
        return Err("its headers begin with a status that is none");
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or("a line of its headers has no colon")?;
        if !name.chars().all(|char| char.is_ascii_graphic()) {
            return Err(
                "the name of a header holds white space, control characters or letters beyond ASCII",
            );
        }
        let mut value = value.to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        if value.trim().contains('\r') {
            return Err("the value of a header holds a carriage return");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &str = "hookline.events.default.crud.consumers";

    fn readable(headers: &[u8]) -> [bool; 2] {
        [Way::Pulled, Way::Copied].map(|way| check(SUBJECT, headers, way).is_ok())
    }

    #[test]
    fn headers_are_checked_as_the_client_reads_them() {
        let fine: [&[u8]; 10] = [
            b"",
            b"NATS/1.0\r\n\r\n",
            b"NATS/1.0\r\nA: b\r\n\r\n",
            b"NATS/1.0\r\nA: b\x01\x7f\xc3\xa9\r\n\r\n",
            b"NATS/1.0\r\n: b\r\n\r\n",
            b"NATS/1.0\r\nA: b\r\n folded\r\n\r\n",
            b"NATS/1.0\nA: b\n\n",
            b"NATS/1.0\r\nA: b",
            b"NATS/1.0\r\nA: b\r\r\n\r\n",
            b"NATS/1.0 503\r\n\r\n",
        ];
        for headers in fine {
            assert_eq!(readable(headers), [true; 2], "{}", headers.escape_ascii());
        }
        let unreadable: [&[u8]; 13] = [
            b"NATS/1.0\r\nA: Andr\xe9\r\n\r\n",
            b"NATS/1.0\r\nA: b\rc\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\nA B: c\r\n\r\n",
            b"NATS/1.0\r\nA\t: c\r\n\r\n",
            b"NATS/1.0\r\nA\x00: c\r\n\r\n",
            b"NATS/1.0\r\nA\x7f: c\r\n\r\n",
            b"NATS/1.0\r\n\xc3\xa9: c\r\n\r\n",
            b"NATS/1.0\r\n A: c\r\n\r\n",
            b"nats/1.0\r\nA: c\r\n\r\n",
            b"NATS/1.1\r\nA: c\r\n\r\n",
            b"\r\n",
            b"NATS/1.0 none\r\n\r\n",
        ];
        for headers in unreadable {
            assert_eq!(readable(headers), [false; 2], "{}", headers.escape_ascii());
        }
        assert_eq!(readable(b"NATS/1.0\r\n"), [true, false]);
    }

    #[test]
    fn a_subject_with_white_space_is_readable_without_headers_only() {
        let headers: &[u8] = b"NATS/1.0\r\n\r\n";
        for char in ['\u{b}', '\u{c}', '\u{85}', '\u{a0}', '\u{2003}', '\u{3000}'] {
            let subject = format!("hookline.events.a{char}b.c.d");
            assert!(check(&subject, b"", Way::Pulled).is_ok(), "{subject:?}");
            assert!(
                check(&subject, headers, Way::Pulled).is_err(),
                "{subject:?}"
            );
            assert!(check(&subject, b"", Way::Copied).is_err(), "{subject:?}");
        }
        assert!(check("hookline.events.\u{fffd}.c.d", b"", Way::Pulled).is_err());
    }
}
