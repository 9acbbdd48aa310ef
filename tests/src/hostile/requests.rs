//! Requests to the Admin port.

use super::{Act, Expect, Input};

const OWN: &str = "Host: {address}\r\n";

pub(super) fn inputs() -> Vec<Input> {
    let mut inputs = other_sites();
    inputs.extend(forms());
    inputs.extend(broken());
    inputs
}

fn other_sites() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (headers, says) in [
        (
            "Host: {address}\r\nOrigin: https://evil.example\r\n",
            "page of another site",
        ),
        (
            "Host: {address}\r\nOrigin: null\r\n",
            "page of another site",
        ),
        (
            "Host: {address}\r\nOrigin: http://{address}.evil.example\r\n",
            "page of another site",
        ),
        ("Host: {address}\r\nSec-Fetch-Site: cross-site\r\n", "site"),
        ("Host: {address}\r\nSec-Fetch-Site: same-site\r\n", "site"),
        ("Host: evil.example\r\n", "Host"),
        (
            "Host: localhost.evil.example\r\nOrigin: http://localhost.evil.example\r\n",
            "Host",
        ),
        ("Host: 169.254.169.254\r\n", "Host"),
    ] {
        let body = "source=crud&handler=log";
        inputs.push(form(
            "another site",
            headers,
            body.as_bytes(),
            Expect::Refused(403, says),
        ));
    }
    inputs
}

fn forms() -> Vec<Input> {
    let mut inputs = Vec::new();
    for body in [
        b"source=crud&handler=log&event=\xff".as_slice(),
        b"source=%ff&handler=log",
        b"%c3%28=1&source=crud&handler=log",
    ] {
        inputs.push(form("form", OWN, body, Expect::Refused(400, "UTF-8")));
    }
    for name in [
        "event-hooks",
        "consumers",
        "workspaces",
        "status",
        "dead-events",
    ] {
        let body = format!("name={name}");
        let head = format!(
            "POST /workspaces HTTP/1.1\r\n{OWN}Content-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let act = Act::Request {
            head,
            body: body.into_bytes(),
        };
        inputs.push(Input {
            class: "reserved name",
            act,
            expect: Expect::Refused(400, "reserved"),
        });
    }
    inputs
}

/// What is no HTTP, or too much of it.
fn broken() -> Vec<Input> {
    let mut inputs = Vec::new();
    let json = |what: &str, length: usize| {
        format!(
            "POST /event-hooks HTTP/1.1\r\n{OWN}Content-Type: application/json\r\n{what}\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    };
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let many = vec![b' '; 2 << 20];
    let flood = "X-A: b\r\n".repeat(200);
    let long = format!("X-A: {}\r\n", "b".repeat(1 << 20));
    for (head, body, status) in [
        (json("", deep.len()), deep, 400),
        (json("", many.len()), many, 413),
        (json(&flood, 2), b"{}".to_vec(), 431),
        (json(&long, 2), b"{}".to_vec(), 431),
        (json("Content-Length: 7\r\n", 2), b"{}".to_vec(), 400),
        (
            json("Transfer-Encoding: chunked\r\n", 2),
            b"zz\r\n".to_vec(),
            400,
        ),
        (
            format!("POST /event-hooks HTTP/9.9\r\n{OWN}\r\n"),
            Vec::new(),
            400,
        ),
        (
            format!("PO ST /event-hooks HTTP/1.1\r\n{OWN}\r\n"),
            Vec::new(),
            400,
        ),
        (
            format!("POST /event-hooks HTTP/1.1\r\n{OWN}X A: b\r\n\r\n"),
            Vec::new(),
            400,
        ),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), Vec::new(), 400),
    ] {
        let act = Act::Request { head, body };
        inputs.push(Input {
            class: "request",
            act,
            expect: Expect::Refused(status, ""),
        });
    }
    inputs
}

fn form(class: &'static str, headers: &str, body: &[u8], expect: Expect) -> Input {
    let head = format!(
        "POST /event-hooks HTTP/1.1\r\n{headers}Content-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let act = Act::Request {
        head,
        body: body.to_vec(),
    };
    Input { class, act, expect }
}
