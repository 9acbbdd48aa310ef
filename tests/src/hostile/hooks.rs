//! Hooks: their templates, scripts, headers and URLs, and events that try to get out of a template.

use serde_json::{Value, json};

use super::{Act, Expect, FORGED, Input};
use crate::Request;

pub(super) fn inputs() -> Vec<Input> {
    let mut inputs = Vec::new();
    inputs.extend(deep_templates().into_iter().map(|body| {
        let config = json!({ "method": "POST", "body": body });
        custom(
            "tree of a template",
            config,
            json!({}),
            Expect::Refused(400, "template"),
        )
    }));
    for body in greedy_templates() {
        for config in [
            json!({ "body": body, "headers": { "content-type": "application/json" } }),
            json!({ "payload": { "text": body } }),
            json!({ "headers": { "x-text": body }, "headers_format": true }),
        ] {
            inputs.push(custom(
                "values of a template",
                config,
                large(),
                Expect::Ends,
            ));
        }
    }
    inputs.extend(scripts().into_iter().map(|script| {
        let config = json!({ "functions": [script] });
        hook("script", "lambda", config, large(), Expect::Ends)
    }));
    inputs.extend(framing());
    inputs.extend(escaping());
    inputs.extend(addresses());
    inputs.extend(lines());
    for secret in ["", "whsec_", "whsec_a b", "whsec_+-"] {
        let config = json!({ "body": "x", "secret": secret });
        let refused = Expect::Refused(400, "secret");
        inputs.push(custom("secret", config, json!({}), refused));
    }
    inputs
}

/// An event with much in it.
fn large() -> Value {
    json!({ "s": "x".repeat(100_000), "l": (0..1_000).collect::<Vec<_>>() })
}

fn hook(
    class: &'static str,
    handler: &'static str,
    config: Value,
    data: Value,
    expect: Expect,
) -> Input {
    Input {
        class,
        act: Act::Hook {
            handler,
            config,
            data,
        },
        expect,
    }
}

fn custom(class: &'static str, mut config: Value, data: Value, expect: Expect) -> Input {
    if config["method"].is_null() {
        config["method"] = json!("POST");
    }
    hook(class, "webhook-custom", config, data, expect)
}

/// Templates whose syntax tree is as deep as they are long.
fn deep_templates() -> Vec<String> {
    let chains = [
        ("{{ 1", "+1", " }}"),
        ("{{ 1", "-1", " }}"),
        ("{{ 1", "*1", " }}"),
        ("{{ 1", "~1", " }}"),
        ("{{ 1", "**1", " }}"),
        ("{{ 1", " and 1", " }}"),
        ("{{ 1", " or 1", " }}"),
        ("{{ a", ".a", " }}"),
        ("{{ a", "[0]", " }}"),
        ("{{ a", "[:]", " }}"),
        ("{{ a", "|upper", " }}"),
        ("{{ a", "()", " }}"),
        ("{{ a", " is odd", " }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ a", " if b else a", " }}"),
        ("{% if 1 %}", "{% elif 1 %}", "{% endif %}"),
        ("{% set ", "(", "a"),
        ("{{ ", "a(", ""),
        ("{{ ", "[", ""),
        ("", "{% if 1 %}", ""),
        ("", "{% filter upper %}", ""),
    ];
    let repeated = |(start, part, end): (&str, &str, &str)| {
        [6_435, 59_000 / part.len()].map(|times| {
            let times = times.min(59_000 / part.len());
            format!("{start}{}{end}", part.repeat(times))
        })
    };
    chains.into_iter().flat_map(repeated).collect()
}

/// Templates whose values grow, or whose work does not end.
fn greedy_templates() -> Vec<String> {
    let doubled =
        |used: &str| "{% set a = [1] %}".to_owned() + &"{% set a = [a, a] %}".repeat(28) + used;
    let mut templates: Vec<_> = [
        "{{ a }}",
        "{{ a|tojson }}",
        "{{ a|string }}",
        "{{ a ~ '' }}",
        "{{ a == a }}",
        "{{ a|join }}",
    ]
    .map(doubled)
    .into();
    templates.extend(
        [
            "{% set s = s ~ s %}".repeat(40) + "{{ s }}",
            "{% set s = s|replace('x', 'xx') %}".repeat(40) + "{{ s }}",
            "{% set a = [] %}".to_owned() + &"{% set a = [a] %}".repeat(900) + "{{ a }}",
            "{{ s|tojson(indent=1000000000) }}".to_owned(),
            "{{ l|batch(4999, s)|list|tojson }}".to_owned(),
            "{{ l|slice(5000, s)|list|tojson }}".to_owned(),
            "{{ '%999999999d'|format(1) }}".to_owned(),
            "{% for a in range(99999) %}{% for b in range(99999) %}{{ s }}{% endfor %}{% endfor %}"
                .to_owned(),
            "{% for a in range(99999) %}{% set b = l|sort %}{% endfor %}".to_owned(),
        ]
        .map(String::from),
    );
    templates
}

fn scripts() -> Vec<String> {
    let set = "'[^' .. ('b'):rep(60000) .. '%z]*x'";
    let bodies = [
        format!("string.match(string.rep('a', 8e6), {set})"),
        format!("string.find(string.rep('a', 8e6), {set})"),
        format!("string.gsub(string.rep('a', 8e6), {set}, '')"),
        format!("string.gmatch(string.rep('a', 8e6), {set})()"),
        format!("local a = ('a'):rep(7e5) {}", "_ = a .. a ".repeat(4_000)),
        format!(
            "local a, b = ('a'):rep(7e6), ('a'):rep(7e6) {}",
            "_ = a < b ".repeat(4_000)
        ),
        format!("local d = ('1'):rep(7e6) {}", "_ = d + 1 ".repeat(4_000)),
        "os.date(string.rep('%c', 1e6))".to_owned(),
        "while true do end".to_owned(),
        "local t = {} while true do t[#t + 1] = ('x'):rep(1e4) .. #t end".to_owned(),
        "for i = 1, 1e9 do pcall(error, i) end".to_owned(),
        "local function f() return 1 + f() end return f()".to_owned(),
        "local t = setmetatable({}, { __index = function(t, k) return t[k] end }) return t.x"
            .to_owned(),
        "table.sort(table.create(1e6, 1), function() return true end)".to_owned(),
        "return table.concat(table.create(1e7, ('x'):rep(1e5)))".to_owned(),
        "return ('%99999999d'):format(1)".to_owned(),
        "return string.byte(('x'):rep(1e7), 1, -1)".to_owned(),
        "error(('x'):rep(3e7))".to_owned(),
        "coroutine.wrap(function() while true do coroutine.yield() end end)()".to_owned(),
        "return string.pack and string.pack(('s'):rep(1e6))".to_owned(),
    ];
    bodies
        .map(|body| format!("return function() {body} end"))
        .into()
}

/// Headers and methods that would frame a request.
fn framing() -> Vec<Input> {
    let header = |name: &str| json!({ "body": "x", "headers": { name: "5" } });
    let mut inputs: Vec<_> = [
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Host",
        "Keep-Alive",
        "Proxy-Connection",
    ]
    .iter()
    .map(|name| {
        custom(
            "framing",
            header(name),
            json!({}),
            Expect::Refused(400, name),
        )
    })
    .collect();
    for (config, says) in [
        (json!({ "method": "CONNECT", "body": "x" }), "method"),
        (
            json!({ "method": "GET / HTTP/1.1\r\nX: y", "body": "x" }),
            "method",
        ),
        (json!({ "headers": { "X-A": "1", "x-a": "2" } }), "x-a"),
        (json!({ "headers": { "x\r\ny": "1" } }), "header"),
        (json!({ "headers": { "x-a": "1\r\nx-b: 2" } }), "header"),
        (json!({ "headers": { "x a": "1" } }), "header"),
    ] {
        inputs.push(custom(
            "framing",
            config,
            json!({}),
            Expect::Refused(400, says),
        ));
    }
    let templated =
        json!({ "headers": { "x-user": "{{ name }}" }, "headers_format": true, "body": "x" });
    let data = json!({ "name": "Eve\r\nContent-Length: 0\r\n\r\n" });
    inputs.push(custom("framing", templated, data, Expect::Dead("header")));
    inputs
}

/// A value that tries to leave the place it is put in.
const EVIL: &str = "\",\"admin\":true,\"x\":\"\\\n\u{2028}</b>&a=b";

fn is_one_value(request: &Request) -> bool {
    request.json == json!({ "text": EVIL })
}

fn is_an_object(request: &Request) -> bool {
    request.json == json!({ "name": EVIL, "none": null })
}

fn is_one_pair(request: &Request) -> bool {
    let text = request.text();
    text.starts_with("text=") && !text.contains(['&', '"', '\n'])
}

fn is_one_element(request: &Request) -> bool {
    let text = request.text();
    text.starts_with("<b>") && !text.contains("</b>")
}

fn escaping() -> Vec<Input> {
    let body = "{\"text\":\"{{ name }}\"}";
    let typed =
        |kind: &str, body: &str| json!({ "body": body, "headers": { "content-type": kind } });
    let mut one_value: Vec<_> = [
        "application/json",
        "text/json",
        "application/vnd.x+json",
        "APPLICATION/JSON; charset=utf-8",
    ]
    .map(|kind| typed(kind, body))
    .into();
    let bodies = [
        body,
        "{% set a = name %}{\"text\":\"{{ a }}\"}",
        "{\"text\":\"{% filter trim %}{{ name }}{% endfilter %}\"}",
        "{\"text\":\"{{ name|e }}\"}",
        "{\"text\":{{ name }}}",
        "{\"text\":{{ name|tojson }}}",
    ];
    one_value.extend(bodies.map(|body| json!({ "body": body })));
    one_value.push(json!({ "payload": { "text": "{{ name }}" } }));
    let mut rendered = typed("{{ type }}", body);
    rendered["headers_format"] = json!(true);
    one_value.push(rendered);
    let is_one_value: fn(&Request) -> bool = is_one_value;
    let mut cases: Vec<_> = one_value
        .into_iter()
        .map(|config| (config, is_one_value))
        .collect();
    let object = "{\"name\":{{ name }},\"none\":{{ none }}}";
    let mut form = typed("application/x-www-form-urlencoded", "");
    form["body"].take();
    form["payload"] = json!({ "text": "{{ name }}" });
    cases.extend([
        (
            json!({ "body": object }),
            is_an_object as fn(&Request) -> bool,
        ),
        (form, is_one_pair),
        (typed("text/html", "<b>{{ name }}"), is_one_element),
    ]);
    let data = json!({ "name": EVIL, "type": "application/json" });
    let input =
        |(config, is_sound)| custom("escaping", config, data.clone(), Expect::Made(is_sound));
    cases.into_iter().map(input).collect()
}

fn addresses() -> Vec<Input> {
    let url = |url: &str| json!({ "url": url, "body": "x" });
    let mut inputs = Vec::new();
    for address in [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://0xa9.0xfe.0xa9.0xfe/",
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "http://0.0.0.0:1/",
        "http://[::1]:1/",
        "http://[fd00::1]/",
        "http://[64:ff9b::a00:1]/",
    ] {
        inputs.push(custom(
            "address",
            url(address),
            json!({}),
            Expect::Dead("not a public address"),
        ));
    }
    for address in [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "unix:/run/x",
        "http://",
        "http://x y/",
        "//example.com/",
        "javascript:alert(1)",
    ] {
        inputs.push(custom(
            "address",
            url(address),
            json!({}),
            Expect::Refused(400, "url"),
        ));
    }
    inputs
}

/// Texts that would be lines of their own in a log.
fn lines() -> Vec<Input> {
    let texts = ["\n", "\r", "\u{2028}", "\u{85}", "\x1b[2K", "\u{202e}"];
    let mut inputs = Vec::new();
    for text in texts {
        let text = format!("x{text}{FORGED}");
        let data = json!({ "text": text, &*text: 1 });
        let script = "return function(data) error(data.text) end";
        let config = json!({ "functions": [script] });
        inputs.push(hook(
            "log line",
            "lambda",
            config,
            data.clone(),
            Expect::Dead("FORGED"),
        ));
        inputs.push(hook("log line", "log", json!({}), data, Expect::Ends));
    }
    inputs
}
