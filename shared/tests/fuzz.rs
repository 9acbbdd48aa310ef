//! Random hostile input for what reads input: nothing panics, overflows a stack or takes long.
//!
//! Each target mutates the inputs of its corpus, a number of rounds in `cargo test`. `HOOKLINE_FUZZ_SECONDS=600 cargo
//! test -p hookline-shared --test fuzz` goes on for that long per target. A seed that fails is printed, and its input
//! belongs into the corpus.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hookline_shared::event::{Event, EventId, Stored};
use hookline_shared::lua::{self, Call, Limits, Sandbox};
use hookline_shared::subject;
use hookline_shared::template::{Escape, Template, context};
use serde_json::{Value, json};

const ROUNDS: u64 = 400;

/// Runs `test` with the seeds 0, 1, ... for as many rounds or as long as asked.
#[expect(clippy::disallowed_methods, reason = "not a setting of a service")]
fn rounds(name: &str, mut test: impl FnMut(&mut fastrand::Rng)) {
    let seconds = std::env::var("HOOKLINE_FUZZ_SECONDS").ok();
    let time = seconds
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    let (began, mut seed) = (Instant::now(), 0);
    while time.map_or(seed < ROUNDS, |time| began.elapsed() < time) {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            test(&mut fastrand::Rng::with_seed(seed));
        }));
        assert!(failed.is_ok(), "{name}: seed {seed} failed");
        seed += 1;
    }
}

/// Joins, repeats, cuts and reorders pieces of the corpus.
fn mutate(random: &mut fastrand::Rng, corpus: &[&str], pieces: &[&str]) -> String {
    let mut text = random
        .choice(corpus)
        .copied()
        .unwrap_or_default()
        .to_owned();
    for _ in 0..random.usize(..12) {
        let place = |random: &mut fastrand::Rng, text: &str| {
            let places: Vec<_> = text
                .char_indices()
                .map(|(index, _)| index)
                .chain([text.len()])
                .collect();
            places[random.usize(..places.len())]
        };
        let (a, b) = (place(random, &text), place(random, &text));
        let (from, to) = (a.min(b), a.max(b));
        match random.u8(..5) {
            0 => text.replace_range(from..to, ""),
            1 => {
                let times = [1, 2, 16, 64, 300][random.usize(..5)];
                let part = text[from..to]
                    .chars()
                    .take(200)
                    .collect::<String>()
                    .repeat(times);
                text.insert_str(from, &part);
            }
            2 => text.insert_str(from, random.choice(corpus).copied().unwrap_or_default()),
            _ => {
                let times = [1, 1, 1, 8, 100][random.usize(..5)];
                let piece = random.choice(pieces).copied().unwrap_or_default();
                text.insert_str(from, &piece.repeat(times));
            }
        }
        if text.len() > 80_000 {
            let end = text.char_indices().map(|(index, _)| index).nth(20_000);
            text.truncate(end.unwrap_or_default());
        }
    }
    text
}

fn event(data: &Value) -> Event {
    let subject = "hookline.events.default.crud.consumers";
    let event = Event::parse_with_id(subject, None, data.to_string().into(), EventId::given("1"));
    event.expect("an event")
}

fn data() -> Value {
    json!({"s": "a\"b\\\n<&>\u{2028}é".repeat(50), "n": 3, "f": 1.5, "t": true, "none": null,
        "l": (0..200).collect::<Vec<_>>(), "o": {"k": ["v", {"x": "\"}"}]},
        "users": [{"name": "ada", "age": 36}, {"name": "bob", "age": 20}]})
}

const TEMPLATES: &[&str] = &[
    "Admin account `{{ entity.username }}` {{ operation}}d; email address set to `{{ entity.email }}`",
    r#"{"a":"{{ s }}","b":{{ o }},"c":[{% for i in l %}{{ i }}{{ "," if not loop.last }}{% endfor %}]}"#,
    "{% set a = [1] %}{% set a = [a, a] %}{% set a = [a, a] %}{{ a|tojson }}{{ a ~ '' }}{{ a == a }}",
    "{% for u in users if u.age > 30 %}{{ u.name|upper|replace('A', s) }}{% else %}none{% endfor %}",
    "{% if n == 1 %}1{% elif n == 2 %}2{% elif n == 3 %}3{% else %}4{% endif %}{{ 1 + 2 * 3 ** 2 // 4 % 5 - 6 }}",
    "{% with a = s, (b, c) = [1, 2] %}{% filter upper|trim %}{{ a }}{{ b }}{% endfilter %}{% endwith %}",
    "{% set x %}{{ s }}{{ s }}{% endset %}{{ x|length }}{{ x[1:3] }}{{ x[-1] }}{{ x|list|batch(3)|list|tojson(indent=2) }}",
    "{{ users|map(attribute='name')|join(', ') }}{{ users|selectattr('age', 'gt', 30)|list|length }}{{ l|sum }}",
    "{{ l|sort|unique|reverse|slice(3)|list }}{{ users|groupby('age') }}{{ o|dictsort }}{{ o|items }}{{ l|min }}",
    "{% raw %}{{ x }}{% endraw %}{# comment #}{{- s -}} {{ '\\u00e9\\n' }} {{ range(9)|list }} {{ missing.a.b|default('d') }}",
    "{{ s is startingwith 'a' and n is divisibleby 3 or not t }}{{ 1 < n <= 3 }}{{ 'x' in s }}{{ ('%s-%5d')|format(s, n) }}",
];
const TEMPLATE_PIECES: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "|",
    ".",
    ",",
    ":",
    "~",
    "+",
    "-",
    "*",
    "**",
    "//",
    " and ",
    " or ",
    " not ",
    " in ",
    " is ",
    " if ",
    " else ",
    "\"",
    "'",
    "\\",
    "|tojson",
    "|string",
    "|join",
    "|upper",
    "|list",
    "|sort",
    "|replace('a', s)",
    "|indent(99999)",
    "|format(s)",
    "|batch(9)",
    "|length",
    "{{ s }}",
    "{{ l }}",
    "{% if t %}",
    "{% endif %}",
    "{% elif n %}",
    "{% for a in l %}",
    "{% endfor %}",
    "{% set s = s ~ s %}",
    "{% set l = [l, l] %}",
    "{% set x %}",
    "{% endset %}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{% with a = 1 %}",
    "{% endwith %}",
    "{% raw %}",
    "{% endraw %}",
    "_raw",
    "namespace()",
    "loop.index",
    "é",
    "\u{2028}",
    "\r\n",
    "\t",
    "0x",
    "1e9",
    "999999999999999999999999",
    "range(99999)",
];

#[test]
fn templates() {
    let context = context(&event(&data()), "consumers");
    rounds("templates", |random| {
        let source = mutate(random, TEMPLATES, TEMPLATE_PIECES);
        for escape in [Escape::None, Escape::Json, Escape::Form, Escape::Xml] {
            if let Ok(template) = Template::compile(&source, escape) {
                let began = Instant::now();
                let _ = template.render(&context);
                assert!(began.elapsed() < Duration::from_secs(20), "{source}");
            }
        }
    });
}

/// A JSON template's result has the same shape whatever its values are.
#[test]
fn json_templates_cannot_be_broken_out_of() {
    let hostile = [
        "\",\"admin\":true,\"x\":\"",
        "\\",
        "\\\"",
        "}",
        "]",
        "null",
        "1,2",
        "\u{0}",
        "\u{2028}",
        "\n",
        "'",
        "\\u0022",
        "{{ s }}",
    ];
    let templates = [
        r#"{"a":"{{ s }}","b":{{ s }},"c":{{ o }},"d":"{{ o }}"}"#,
        r#"{"a":"{% set x %}<{{ s }}>{% endset %}{{ x }}","b":{{ s|upper }},"c":{{ o|tojson }},"d":"{{ s|e }}"}"#,
        r#"{"a":"{% filter upper %}{{ s }}{% endfilter %}","b":{{ s if s else o }},"c":{{ [s, o] }},"d":"{{ s ~ o }}"}"#,
        r#"{"a":"{{ s|replace('a', s) }}","b":{{ s|tojson|upper }},"c":{{ s|list }},"d":"{{ [s]|join(s) }}"}"#,
        r#"{"a":"{% for c in s %}{{ c }}{% endfor %}","b":{{ none }},"c":{{ missing }},"d":"{{ '%s'|format(s) }}"}"#,
    ];
    let compiled = templates.map(|source| Template::compile(source, Escape::Json).expect(source));
    rounds("json", |random| {
        let mut text = String::new();
        for _ in 0..random.usize(..6) {
            text.push_str(random.choice(hostile).unwrap_or_default());
        }
        text.extend((0..random.usize(..4)).map(|_| random.char(..)));
        let data = json!({ "s": text, "o": { &text: [text, 1, null] }, "none": null });
        let context = context(&event(&data), "consumers");
        for (template, source) in compiled.iter().zip(templates) {
            let json = template.render(&context).expect(source);
            let read: Value =
                serde_json::from_str(&json).unwrap_or_else(|_| panic!("{source} {data}: {json}"));
            let keys: Vec<_> = read.as_object().expect("an object").keys().collect();
            assert_eq!(keys, ["a", "b", "c", "d"], "{source} {data}: {json}");
            assert!(
                read["a"].is_string() && read["d"].is_string(),
                "{source} {data}: {json}"
            );
        }
    });
}

const SCRIPTS: &[&str] = &[
    "return function (data, event, source, pid) local user = data.s error('Event hook on ' .. user .. '') end",
    "return function(data) for k, v in pairs(data) do local _ = tostring(k) .. tostring(v) end return true end",
    "return function() local t = {} for i = 1, 1e3 do t[#t + 1] = ('x'):rep(i) end table.sort(t) return #table.concat(t) end",
    "return function(data) return data.s:match('[^%z]*x') or data.s:gsub('(.-)b', '%1') or data.s:find('a.-b', 1, true) end",
    "return function() local co = coroutine.wrap(function() for i = 1, 9 do coroutine.yield(i) end end) return co() + co() end",
    "return function() return pcall(error, setmetatable and 1 or {}), string.format('%5.2f %q %s', 1.5, 'a', {}) end",
    "return function() return os.date('%Y-%m-%d', 0), utf8.len('é'), bit32.band(7, 3), math.floor(1.5), unpack({1, 2}) end",
];
const SCRIPT_PIECES: &[&str] = &[
    "..",
    "<",
    "+",
    "-",
    "//",
    "^",
    "==",
    "(",
    ")",
    "{",
    "}",
    "[[",
    "]]",
    "--",
    "--[[",
    "'",
    "\"",
    "\\",
    " end ",
    " do ",
    " then ",
    " function() ",
    " while true do ",
    " repeat ",
    " until ",
    " local a = ",
    " return ",
    "('x'):rep(1e6)",
    "string.match(a, '[^b]*x')",
    ".a",
    "[1]",
    ":find('a')",
    "#",
    ",",
    ";",
    "=",
    "pcall(",
    "coroutine.wrap(",
    "table.insert(",
    "%",
    "\u{0}",
    "é",
    "`{1}`",
];

#[test]
fn scripts() {
    let limits = Limits {
        time: Duration::from_millis(20),
        memory: 8 << 20,
    };
    let data = data();
    let call = Call {
        data: data.as_object().expect("an object"),
        event: "consumers",
        source: "crud",
        pid: 1,
    };
    rounds("scripts", |random| {
        let source = mutate(random, SCRIPTS, SCRIPT_PIECES);
        if let Ok(script) = lua::compile(&source) {
            let sandbox = Sandbox::new(limits).expect("a VM");
            let began = Instant::now();
            let _ = sandbox.call(&script, call);
            assert!(began.elapsed() < Duration::from_secs(10), "{source}");
        }
    });
}

const SUBJECTS: &[&str] = &[
    "hookline.events.default.crud.consumers",
    "hookline.events.default.kong:event_hooks.ping",
    "hookline.events.Ada%20Lovelace.crud.%C3%A9",
    "hookline.events.a.b.c",
];
const SUBJECT_PIECES: &[&str] = &[
    ".", "%", "%2", "%ff", "%2E", "%2e", "%25", "*", ">", ":", "_", "é", "\u{0}", " ", "hookline",
    "events",
];
const BODIES: &[&str] = &[
    r#"{"operation":"create","entity":{"id":"1","username":"ada"},"schema":"consumers","source":"x","event":"y"}"#,
    r#"{"operation":null,"a":[1,2.5e300,-0,"\u00e9\ud83d\ude00"],"b":{"c":{"d":{}}}}"#,
    "{}",
];
const BODY_PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    ":",
    ",",
    "null",
    "1e999",
    "-",
    "operation",
    "source",
    "\u{0}",
    "é",
];

#[test]
fn events() {
    rounds("events", |random| {
        let subject = mutate(random, SUBJECTS, SUBJECT_PIECES);
        let body = mutate(random, BODIES, BODY_PIECES);
        let mut headers = async_nats::HeaderMap::new();
        for name in [
            "Nats-Msg-Id",
            "Hookline-Pid",
            "Hookline-Hook",
            "traceparent",
            "Nats-Stream-Source",
        ] {
            let value: String = (0..random.usize(..600))
                .map(|_| random.char(' '..))
                .collect();
            headers.insert(name, value.replace(['\r', '\n'], ""));
        }
        let stored = Stored {
            sequence: random.u64(..),
            time: random.i128(..),
        };
        let parsed = Event::parse(&subject, Some(&headers), Bytes::from(body.clone()), stored);
        if let Ok(event) = parsed {
            assert_eq!(
                event.data().is_empty(),
                body.trim() == "{}" || event.data().is_empty(),
                "{body}"
            );
            let again = subject::event_subject(&event.workspace, &event.source, &event.name);
            assert_eq!(again, subject, "one spelling");
            let _ = (
                event.operation(),
                event.names_itself(),
                event.id.digest(&event.workspace),
            );
        }
        let _ = (
            subject::parse_entity_key(&subject),
            subject::parse_wait_subject(&subject),
        );
        let _ = (
            subject::parse_ready_subject(&subject),
            subject::entities_of_reserved_id(&subject),
        );
    });
}
