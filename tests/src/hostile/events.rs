//! Messages that are no events, that pretend, or that the NATS client cannot read.

use super::{Act, Expect, Input};

const SUBJECT: &[u8] = b"hookline.events.default.crud.consumers";
const PLAIN: &[u8] = b"NATS/1.0\r\n\r\n";

/// Subjects and header blocks at which a client closes its connection. An id is to be new each time: `#`.
pub const UNREADABLE: [(&[u8], &[u8]); 18] = [
    (SUBJECT, b"NATS/1.0\r\nX-User: Andr\xe9\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nNats-Msg-Id: \xff#\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nno colon\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nA B: c\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nA : c\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nA\tB: c\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nA\x00: c\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nA\x7f: c\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\n\xc3\xa9: c\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\n A: c\r\n\r\n"),
    (SUBJECT, b"nats/1.0\r\nA: c\r\n\r\n"),
    (SUBJECT, b"NATS/1.1\r\nA: c\r\n\r\n"),
    (SUBJECT, b"\r\n"),
    (
        b"hookline.events.default.crud.\xe9",
        b"NATS/1.0\r\nA: c\r\n\r\n",
    ),
    (
        b"hookline.events.\xffdefault.crud.a",
        b"NATS/1.0\r\nA: c\r\n\r\n",
    ),
    (
        b"hookline.events.default.crud.a\xc2\xa0b",
        b"NATS/1.0\r\nA: c\r\n\r\n",
    ),
    (
        b"hookline.events.default.crud.a\x0bb",
        b"NATS/1.0\r\nA: c\r\n\r\n",
    ),
    (
        b"hookline.events.default.crud.a\xe2\x80\x83b",
        b"NATS/1.0\r\nA: c\r\n\r\n",
    ),
];

pub(super) fn inputs() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (number, (subject, headers)) in UNREADABLE.iter().enumerate() {
        let body = format!("{{\"unreadable\":{number}}}");
        let says = if *subject == SUBJECT {
            "header"
        } else {
            "subject"
        };
        inputs.push(message(
            "unreadable",
            subject,
            headers,
            body.as_bytes(),
            says,
        ));
    }
    inputs.extend(subjects());
    let deep = "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000);
    for body in [
        b"hello".as_slice(),
        b"[{\"list\":1}]",
        b"\"text\"",
        b"{\"cut\":",
        b"{\"two\":1}{}",
        b"{\"bytes\":\"\xff\"}",
        b"\xef\xbb\xbf{\"mark\":1}",
        b"{\"nan\":NaN}",
        deep.as_bytes(),
    ] {
        inputs.push(message("no JSON object", SUBJECT, PLAIN, body, ""));
    }
    let long = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", "x".repeat(513));
    inputs.push(message(
        "long id",
        SUBJECT,
        long.as_bytes(),
        b"{\"id\":\"long\"}",
        "id has 513",
    ));
    inputs
}

/// Subjects that are no event's, or that only gateways may use.
fn subjects() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (number, (subject, says)) in [
        (
            "hookline.events.default.kong:event_hooks.ping",
            "gateways only",
        ),
        (
            "hookline.events.other.kong:event_hooks.ping",
            "gateways only",
        ),
        (
            "hookline.events.default.hookline:audit.write",
            "gateways only",
        ),
        (
            "hookline.events.default.kong%3Aevent_hooks.ping",
            "spelling",
        ),
        (
            "hookline.events.default.%6bong:event_hooks.ping",
            "spelling",
        ),
        (
            "hookline.events.default.%6Bong:event_hooks.ping",
            "spelling",
        ),
        ("hookline.events.default.crud.a%2db", "spelling"),
        ("hookline.events.d%65fault.crud.consumers", "spelling"),
        ("hookline.events.default.crud.%2e", "spelling"),
        ("hookline.events.default.crud.%", "spelling"),
        ("hookline.events.default.crud.%ff", "UTF-8"),
        ("hookline.events.default", "subject"),
        ("hookline.events.default.crud.a.b", "subject"),
    ]
    .iter()
    .enumerate()
    {
        let body = format!("{{\"subject\":{number}}}");
        inputs.push(message(
            "subject",
            subject.as_bytes(),
            PLAIN,
            body.as_bytes(),
            says,
        ));
    }
    inputs
}

fn message(
    class: &'static str,
    subject: &[u8],
    headers: &[u8],
    body: &[u8],
    says: &'static str,
) -> Input {
    Input {
        class,
        act: Act::Message(subject.to_vec(), headers.to_vec(), body.to_vec()),
        expect: Expect::Dead(says),
    }
}
