use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::event::{Event, EventId};

fn event(data: &Value) -> Event {
    Event::parse_with_id(
        "hookline.events.default.crud.admins",
        None,
        Bytes::from(data.to_string()),
        EventId::given("1"),
    )
    .expect("an event")
}

fn render(source: &str, escape: Escape, data: &Value) -> Result<String, Error> {
    Template::compile(source, escape)?.render(&context(&event(data), "admins"))
}

#[test]
fn the_documents_slack_text_renders() {
    let data = json!({"operation": "create",
        "entity": {"username": "ada", "email": "ada@example.com"}});
    let source = "Admin account `{{ entity.username }}` {{ operation}}d; \
                  email address set to `{{ entity.email }}`";
    assert_eq!(
        render(source, Escape::None, &data).expect("a text"),
        "Admin account `ada` created; email address set to `ada@example.com`"
    );
}

#[test]
fn a_missing_name_renders_empty_even_below_a_missing_parent() {
    let data = json!({"a": null});
    let source = "[{{ b }}{{ old_entity.username }}{{ a }}{{ a.b.c }}]";
    assert_eq!(render(source, Escape::None, &data).expect("a text"), "[]");
}

#[test]
fn source_and_event_override_the_data() {
    let data = json!({"source": "x", "event": "y"});
    assert_eq!(
        render("{{ source }} {{ event }}", Escape::None, &data).expect("a text"),
        "crud admins"
    );
}

#[test]
fn numbers_are_written_as_published_and_computed_with() {
    let data = r#"{"price": 1.50, "big": 123456789012345678901234567890123456789012345, "wide":
        18446744073709551616, "e": 1e3, "huge": 1e400, "zero": 0.00, "list": [2.50, 1.0, 10.00],
        "items": [{"p": 2.50}, {"p": 10.00}], "id": 7, "f": 1.5}"#;
    let event = Event::parse_with_id(
        "hookline.events.default.crud.admins",
        None,
        Bytes::from_static(data.as_bytes()),
        EventId::given("1"),
    );
    let context = context(&event.expect("an event"), "admins");
    for (source, want) in [
        (
            "{{ price }} {{ e }} {{ huge }} {{ id }} {{ f }}",
            "1.50 1e3 1e400 7 1.5",
        ),
        (
            "{{ big }} {{ wide }}",
            "123456789012345678901234567890123456789012345 18446744073709551616",
        ),
        ("{{ items }}", r#"[{"p":2.50},{"p":10.00}]"#),
        ("{{ items|tojson }}", r#"[{"p": 2.50}, {"p": 10.00}]"#),
        (
            "{{ list|join('/') }} {{ list|first }} {{ list|last }}",
            "2.50/1.0/10.00 2.50 10.00",
        ),
        (
            "{% for item in items %}{{ item.p }};{% endfor %}",
            "2.50;10.00;",
        ),
        (
            "{{ price|replace('.', ',') }} {{ price|string }} {{ price ~ 'x' }}",
            "1,50 1.50 1.50x",
        ),
        (
            "{{ price|default(1) }} {{ price or 2 }} {{ price if price else 2 }}",
            "1.50 1.50 1.50",
        ),
        ("{% set p = price %}{{ p }} {{ [price] }}", "1.50 [1.50]"),
        (
            "{{ price + 1 }} {{ price * 2 }} {{ -price }} {{ e / 10 }} {{ wide + 1 }}",
            "2.5 3.0 -1.5 100.0 18446744073709551617",
        ),
        (
            "{{ price == 1.5 }} {{ price < 2 }} {{ 2.5 in list }} {{ price == f }}",
            "true true true true",
        ),
        (
            "{{ price|round }} {{ price|int }} {{ price|float }} {{ '%.1f'|format(price) }}",
            "2.0 1 1.5 1.5",
        ),
        (
            "{{ list|sum }} {{ list|max }} {{ list|min }} {{ list|sort|last }}",
            "13.5 10.0 1.0 10.0",
        ),
        (
            "{{ list|select('gt', 2)|length }} {{ items|selectattr('p', 'gt', 3)|length }}",
            "2 1",
        ),
        (
            "{{ price is number }} {{ price is float }} {{ price is string }} {{ price is defined }}",
            "true true false true",
        ),
        (
            "{% if zero %}yes{% else %}no{% endif %} {{ not zero }} {{ range(e|int)|length }}",
            "no true 1000",
        ),
    ] {
        let template = Template::compile(source, Escape::None).expect(source);
        assert_eq!(template.render(&context).expect(source), want, "{source}");
    }
    let body = r#"{"n": {{ price }}, "s": "{{ price }}", "l": {{ list }}}"#;
    let template = Template::compile(body, Escape::Json).expect("a template");
    let want = r#"{"n": 1.50, "s": "1.50", "l": [2.50,1.0,10.00]}"#;
    assert_eq!(template.render(&context).expect("a text"), want);
}

#[test]
fn filters_of_jinja_give_what_jinja_gives() {
    let data = json!({"long": "The quick brown fox jumps", "html": "<b>1 &lt; 2</b> <!-- x -->y",
        "n": 3, "one": [1], "size": 1_500_000, "wide": "a bb ccc dddddddd"});
    for (source, want) in [
        (
            "{{ long|truncate(9) }}|{{ long|truncate(9, true) }}",
            "The...|The qu...",
        ),
        (
            "{{ long|truncate(9, true, '', 0) }}|{{ long|truncate(21) }}",
            "The quick|The quick brown fox jumps",
        ),
        (
            "{{ long|truncate(length=12, end='!', leeway=0) }}",
            "The quick!",
        ),
        (
            "{{ long|wordcount }} {{ 'a_b c-d'|wordcount }} {{ ''|wordcount }}",
            "5 3 0",
        ),
        ("{{ html|striptags }}", "1 < 2 y"),
        (
            "[{{ 'ab'|center(5) }}] [{{ 'ab'|center(width=1) }}]",
            "[ ab  ] [ab]",
        ),
        (
            "{{ size|filesizeformat }} {{ size|filesizeformat(true) }}",
            "1.5 MB 1.4 MiB",
        ),
        (
            "item{{ n|pluralize }} item{{ one|pluralize }} part{{ n|pluralize('y', 'ies') }}",
            "items item parties",
        ),
        ("{{ wide|wordwrap(6) }}", "a bb\nccc\ndddddd\ndd"),
        ("{{ wide|wordwrap(6, false, '/') }}", "a bb/ccc/dddddddd"),
        (
            "{{ {'a': [1]}|pprint }} {{ '<'|forceescape }}",
            "{\n  \"a\": [\n    1\n  ]\n} <",
        ),
        (
            "{{ 'a b&c/d'|urlencode }} {{ ['<i>x</i>']|map('striptags')|join }}",
            "a%20b%26c/d x",
        ),
    ] {
        assert_eq!(
            render(source, Escape::None, &data).expect(source),
            want,
            "{source}"
        );
    }
    let huge = "{{ 'a'|center(10000000000) }}";
    assert!(matches!(
        render(huge, Escape::None, &data),
        Err(Error::OutOfFuel)
    ));
    let far = "{{ long|truncate(18446744073709551615) }}";
    assert_eq!(
        render(far, Escape::None, &data).expect(far),
        "The quick brown fox jumps"
    );
}

#[test]
fn sound_templates_render_as_by_the_plain_engine() {
    let data = json!({"s": "a,b", "n": 3, "f": 1.5, "t": true, "none": null, "l": [3, 1, 2],
        "o": {"k": "v", "a.b": 1}, "users": [{"name": "ada", "age": 36}, {"name": "bob", "age": 20}]});
    for source in [
        "plain { text } with % and # and \"quotes\" \\ and \n lines\n",
        "{{ s }}|{{ n }}|{{ f }}|{{ t }}|{{ none }}|{{ missing.a.b }}",
        "{# comment #}{%- if n > 2 -%} yes {%- else -%} no {%- endif %} .",
        "{% if n == 1 %}1{% elif n == 2 %}2{% elif n == 3 %}3{% else %}4{% endif %}",
        "{% for i in l %}{{ loop.index }}:{{ i }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}",
        "{% for k, v in o|items %}{{ k }}={{ v }};{% endfor %}",
        "{% for u in users if u.age > 30 %}{{ u.name }}{% endfor %}",
        "{% set x = n + 1 %}{{ x * 2 - 3 }} {{ n ** 2 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ -n }} {{ 7 / 2 }}",
        "{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 2 ** 3 ** 2 }} {{ 10 - 3 - 2 }} {{ 100 / 10 / 5 }}",
        "{{ not t or n == 3 and f < 2 }} {{ not (t and none) }} {{ 1 < n <= 3 }} {{ 1 in l }} {{ 9 not in l }}",
        "{{ 'a' ~ n ~ s ~ (1 + 1) }} {{ \"x\" if t else \"y\" }} {{ 'z' if none }}",
        "{{ s|upper|replace('A', 'x') }} {{ s|split(',')|join('-') }} {{ l|sort|join(',') }} {{ l|length }}",
        "{{ l|first }} {{ l|last }} {{ l[1] }} {{ l[-1] }} {{ l[:2]|join }} {{ l[1:]|length }} {{ s[0] }} {{ s[::2] }}",
        "{{ missing|default('d') }} {{ none|default('d') }} {{ none|d('d', true) }}",
        "{{ users|map(attribute='name')|join(' ') }} {{ users|selectattr('age', 'gt', 30)|length }}",
        "{{ l|map('string')|join }} {{ l|select('odd')|join }} {{ l|reject('odd')|join }} {{ l|select|length }}",
        "{{ n is odd }} {{ n is divisibleby 3 }} {{ s is startingwith 'a' }} {{ missing is defined }} {{ n is not none }}",
        "{{ o['a.b'] }} {{ o.k }} {{ o.missing }} {{ {'a': n}.a }} {{ [1, [2, 3]][1][0] }} {{ (1, 2)|length }}",
        "{% with a = 1, b = s %}{{ a }}{{ b }}{% endwith %}{{ a }}",
        "{% set x %}a{{ n }}{% endset %}[{{ x }}]{% set y | upper %}b{{ s }}{% endset %}{{ y }}",
        "{% filter upper|replace('A', '4') %}a{{ s }}{% endfilter %}",
        "{% raw %}{{ not.a.tag }}{% endraw %} {{ '{{' }} {{ \"\\\"\\n\\u00e9\" }}",
        "{{ range(3)|list|join(',') }} {% for i in range(1, 6, 2) %}{{ i }}{% endfor %}",
        "{% for a in l %}{{ loop.cycle('odd', 'even') }} {% if loop.changed(a > 1) %}c{% endif %}{% endfor %}",
        "{{ l|sum }} {{ [1, 2.5]|sum }} {{ l|min }} {{ l|max }} {{ l|unique|length }} {{ l|reverse|join }}",
        "{{ f|round }} {{ 'x'|int(7) }} {{ '42'|int + 1 }} {{ ' a '|trim }} {{ '..a.'|trim('.') }} {{ 'ab'|title }}",
        "{% for b in range(5)|batch(2) %}[{{ b|join }}]{% endfor %}{% for b in range(5)|slice(2) %}({{ b|join }}){% endfor %}",
        "{% for g, members in users|groupby('age') %}{{ g }}:{{ members|length }} {% endfor %}{{ o|dictsort|length }}",
        "{{ \"%s-%d\"|format(s, n) }} {{ 'a\nb'|indent(2) }} {{ 'a b&c'|urlencode }} {{ o|tojson }} {{ l|tojson(indent=2) }}",
        "{{ 1.0 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 123456789012345678901234567890 }} {{ 'x' * 3 }} {{ 'a' + 'b' }}",
    ] {
        let plain = plain(source, &data);
        assert_eq!(
            render(source, Escape::None, &data).expect(source),
            plain,
            "{source}"
        );
    }
}

/// Without bounds, and for text.
fn plain(source: &str, data: &Value) -> String {
    let mut environment = Environment::new();
    environment.set_syntax(syntax().expect("a syntax"));
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, _, value| match value.as_str() {
        _ if value.is_none() || value.is_undefined() => Ok(()),
        Some(text) => Ok(out.write_str(text)?),
        None => Ok(out.write_str(&serde_json::to_string(value).expect("JSON"))?),
    });
    environment.add_template(NAME, source).expect(source);
    let template = environment.get_template(NAME).expect("the template");
    template
        .render(context(&event(data), "admins"))
        .expect(source)
}

#[test]
fn values_are_escaped_once_for_where_they_land() {
    let data = json!({"t": "a\"b\\\n<&> é", "n": 1.5, "o": {"k": ["v"]}, "b": true, "none": null});
    let text = "a\"b\\\n<&> é";
    for (source, parsed) in [
        (r#"{"t":"{{ t }}"}"#, json!({"t": text})),
        (
            r#"{"t":{{ t }},"n":{{ n }},"o":{{ o }},"b":{{ b }},"x":{{ none }},"y":{{ missing }}}"#,
            json!({"t": text, "n": 1.5, "o": {"k": ["v"]}, "b": true, "x": null, "y": null}),
        ),
        (
            r#"{"o":{{ o|tojson }},"i":"{{ o|tojson }}","j":"{{ o }}"}"#,
            json!({"o": {"k": ["v"]}, "i": "{\"k\": [\"v\"]}", "j": "{\"k\":[\"v\"]}"}),
        ),
        (
            r#"{"t":"{% set x %}<{{ t }}>{% endset %}{{ x }}"}"#,
            json!({"t": format!("<{text}>")}),
        ),
        (
            r#"{"t":"{% filter upper %}{{ t }}{% endfilter %}"}"#,
            json!({"t": text.to_uppercase()}),
        ),
        (
            r#"{"t":"{{ t|e }}","u":"{{ t|upper|escape }}"}"#,
            json!({"t": text, "u": text.to_uppercase()}),
        ),
        (
            r#"{% set j = o|tojson %}[{{ j }},{{ j|upper }}]"#,
            json!([{"k": ["v"]}, {"K": ["V"]}]),
        ),
        (
            r#"{% set j = [t]|tojson %}[{{ j }},{{ j|replace(']', '') }}]"#,
            json!([[text], json!([text]).to_string().replace(']', "")]),
        ),
        (
            r#"[{% for i in [1, 2] %}{{ i }}{{ "," if not loop.last }}{% endfor %}]"#,
            json!([1, 2]),
        ),
        (
            r#"[{% for i in [t, 2] %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %}]"#,
            json!([text, 2]),
        ),
        (r#"{{ '{"a":"' }}{{ t }}"}"#, json!({"a": text})),
        (
            r#"{"a":"\"{{ t }}\u0041"}"#,
            json!({"a": format!("\"{text}A")}),
        ),
        (r#"{"{{ t }}":1}"#, json!({text: 1})),
        (
            r#"{"a":{{ t if b else n }},"c":{{ "1" if b else "2" }}}"#,
            json!({"a": text, "c": 1}),
        ),
    ] {
        let json = render(source, Escape::Json, &data).expect(source);
        let read: Value =
            serde_json::from_str(&json).unwrap_or_else(|_| panic!("{source}: {json}"));
        assert_eq!(read, parsed, "{source}");
    }
    let form = render("t={{ t }}&s={{ b }}", Escape::Form, &data).expect("a text");
    assert_eq!(form, "t=a%22b%5C%0A%3C%26%3E%20%C3%A9&s=true");
    let xml = render(
        "<a b='{{ t }}'>{{ o }}</a>",
        Escape::Xml,
        &json!({"t": "<'\"&>", "o": ["<"]}),
    );
    assert_eq!(
        xml.expect("a text"),
        "<a b='&lt;&#39;&quot;&amp;&gt;'>[&quot;&lt;&quot;]</a>"
    );
    let plain = render("{{ t }} {{ o }}", Escape::None, &data).expect("a text");
    assert_eq!(plain, "a\"b\\\n<&> é {\"k\":[\"v\"]}");
}

#[test]
fn a_json_template_without_a_clear_place_for_its_values_is_refused() {
    for source in [
        r#"{"a":"\{{ t }}"}"#,
        r#"{"a":"\u00{{ t }}"}"#,
        r#"{"a":{% if b %}"{% endif %}{{ t }}"}"#,
        r#"{"a":{% for i in l %}"{{ i }}{% endfor %}}"#,
        r#"[{{ '"' if b else '1' }}]"#,
        r#"{% if b %}"{% else %}1{% endif %}"#,
    ] {
        let error = Template::compile(source, Escape::Json).expect_err(source);
        assert!(
            error.to_string().starts_with("line 1: "),
            "{source}: {error}"
        );
        assert!(Template::compile(source, Escape::None).is_ok(), "{source}");
    }
}

#[test]
fn what_is_not_offered_is_refused_with_its_line() {
    for (source, says) in [
        ("\n\n{{ a|zip(b) }}", "line 3: there is no filter `zip`"),
        ("{{ a|safe }}", "there is no filter `safe`"),
        ("{{ a|_raw }}", "there is no filter `_raw`"),
        ("{{ a|_read }}", "there is no filter `_read`"),
        ("{{ a is filter }}", "there is no test `filter`"),
        ("{{ namespace() }}", "there is no function `namespace`"),
        ("{{ dict(a=1) }}", "there is no function `dict`"),
        ("{{ debug() }}", "there is no function `debug`"),
        ("{{ a.b() }}", "values have no methods"),
        ("{{ a.items() }}", "values have no methods"),
        ("{{ a|map('zip') }}", "there is no filter of `map` `zip`"),
        ("{{ a|map(b) }}", "must be a text in quotes"),
        ("{{ a|select(b) }}", "must be a text in quotes"),
        ("{{ a|selectattr('x', 'nope') }}", "there is no test `nope`"),
        ("{% set a.b = 1 %}", "only variables can be set"),
        ("{% do a() %}", "do is not offered"),
        (
            "{% autoescape true %}{% endautoescape %}",
            "autoescape is not offered",
        ),
        (
            "{% for a in b recursive %}{% endfor %}",
            "recursive loops are not offered",
        ),
        ("{{ range(*a) }}", "cannot be unpacked"),
        ("{{ a|join(**b) }}", "cannot be unpacked"),
        ("{% include 'x' %}", "unknown statement include"),
        ("{% macro a() %}{% endmacro %}", "unknown statement macro"),
        ("{{ 1e999 }}", "too large"),
        ("a\0b", "NUL"),
    ] {
        let error = Template::compile(source, Escape::None)
            .expect_err(source)
            .to_string();
        assert!(error.contains(says), "{source}: {error}");
    }
}

#[test]
fn wrong_names_and_arguments_are_refused_with_what_is_right() {
    for (source, says) in [
        (
            "{{ a|uper }}",
            "line 1: there is no filter `uper`, did you mean `upper`?",
        ),
        (
            "{{ a is defind }}",
            "there is no test `defind`, did you mean `defined`?",
        ),
        (
            "{{ rang(3) }}",
            "there is no function `rang`, did you mean `range`?",
        ),
        (
            "\n{{ a|replace('b') }}",
            "line 2: filter 'replace' takes 2 to 3 arguments, not 1",
        ),
        (
            "{{ a|replace }}",
            "filter 'replace' takes 2 to 3 arguments, not 0",
        ),
        (
            "{{ a|upper(1) }}",
            "filter 'upper' takes 0 arguments, not 1",
        ),
        (
            "{{ a|truncate(1, 2, 3, 4, 5) }}",
            "filter 'truncate' takes 0 to 4 arguments, not 5",
        ),
        (
            "{{ a|truncate(lenght=5) }}",
            "there is no argument `lenght`, did you mean `length`?",
        ),
        (
            "{{ a|groupby }}",
            "filter 'groupby' takes 1 arguments, not 0",
        ),
        ("{{ a|map }}", "filter 'map' takes 1 arguments, not 0"),
        (
            "{{ a|selectattr }}",
            "filter 'selectattr' takes 1 to 3 arguments, not 0",
        ),
        ("{{ a|select('gt') }}", "test 'gt' takes 1 arguments, not 0"),
        (
            "{{ a is divisibleby }}",
            "test 'divisibleby' takes 1 arguments, not 0",
        ),
        ("{{ a is odd(1) }}", "test 'odd' takes 0 arguments, not 1"),
        (
            "{{ range() }}",
            "function 'range' takes 1 to 3 arguments, not 0",
        ),
    ] {
        let error = Template::compile(source, Escape::None)
            .expect_err(source)
            .to_string();
        assert!(error.contains(says), "{source}: {error}");
    }
}

/// Shapes whose syntax tree is as deep as they are long.
fn chains() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("{{ 1", "+1", " }}"),
        ("{{ 1", "-1", " }}"),
        ("{{ 1", "*1", " }}"),
        ("{{ 1", "~1", " }}"),
        ("{{ 1", "**1", " }}"),
        ("{{ 1", "//1", " }}"),
        ("{{ 1", "%1", " }}"),
        ("{{ 1", " and 1", " }}"),
        ("{{ 1", " or 1", " }}"),
        ("{{ 1", "<1", " }}"),
        ("{{ 1", "==1", " }}"),
        ("{{ 1", " in a", " }}"),
        ("{{ 1", " not in a", " }}"),
        ("{{ a", ".a", " }}"),
        ("{{ a", "[0]", " }}"),
        ("{{ a", "[:]", " }}"),
        ("{{ a", "|upper", " }}"),
        ("{{ a", "()", " }}"),
        ("{{ a", " is odd", " }}"),
        ("{{ a", " is not odd", " }}"),
        ("{{ a", " if b else a", " }}"),
        ("{{ a", " if b", " }}"),
        ("{{ a", " 'a'", " }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ ", "(", "1"),
        ("{{ ", "[", "1"),
        ("{{ ", "{1:", "1"),
        ("{{ ", "a(", "1"),
        ("{{ ", "a(b=", "1"),
        ("{{ ", "a[", "1"),
        ("{{ ", "a|join(", "1"),
        ("{{ ", "a is in(", "1"),
        ("{% if 1 %}", "{% elif 1 %}", "{% endif %}"),
        ("", "{% if 1 %}", ""),
        ("", "{% for a in b %}", ""),
        ("", "{% with a = 1 %}", ""),
        ("", "{% set a %}", ""),
        ("", "{% filter upper %}", ""),
        ("{% filter upper", "|upper", " %}{% endfilter %}"),
        ("{% set a", "|upper", " %}{% endset %}"),
        ("{% set ", "(", "a"),
        ("{% set a", ".a", " = 1 %}"),
        ("{% for ", "(", "a"),
        ("{% set a = 1", ",1", " %}"),
        ("{{ [1", ",1", "] }}"),
        ("{{ a(1", ",1", ") }}"),
        ("{% with a = 1", ", a = 1", " %}{% endwith %}"),
        ("", "{{ 1 }}", ""),
        ("", "{#", ""),
        ("{{ '", "\\\\", "' }}"),
        ("", "\n", ""),
    ]
}

fn close(opened: &str, times: usize) -> String {
    let brackets: String = opened
        .chars()
        .rev()
        .filter_map(|char| match char {
            '(' => Some(')'),
            '[' => Some(']'),
            '{' => Some('}'),
            _ => None,
        })
        .collect();
    match opened {
        _ if opened.starts_with("{%") => {
            let name = opened[2..]
                .trim()
                .split([' ', '%'])
                .next()
                .unwrap_or_default();
            format!("{{% end{name} %}}").repeat(times)
        }
        "{#" | "{{ 1 }}" | "\\\\" | "\n" => String::new(),
        _ => brackets.repeat(times),
    }
}

#[test]
fn no_syntax_tree_overflows_a_stack() {
    for (start, part, end) in chains() {
        let longest = (MAX_SOURCE_BYTES - start.len() - end.len()) / part.len() / 2;
        for times in [
            10, 15, 16, 17, 31, 32, 33, 48, 64, 100, 127, 128, 250, 255, 256, 257, 1_000, 6_435,
            longest,
        ] {
            let closing = match end {
                "1" => format!("1{} }}}}", close(part, times)),
                "a" => format!("a{} = 1 %}}", close(part, times)),
                end => format!("{}{end}", close(part, times)),
            };
            let source = format!("{start}{}{closing}", part.repeat(times));
            for escape in [Escape::None, Escape::Json] {
                if let Ok(template) = Template::compile(&source, escape) {
                    let _ = template.render(&context(
                        &event(&json!({"a": {"a": 1}, "b": [1]})),
                        "admins",
                    ));
                }
            }
        }
    }
}

#[test]
fn sound_sizes_are_accepted() {
    for (source, times) in [
        ("{{ a ~ ' ' ~ b }}\n", 300),
        ("{% if a %}x{% endif %}", 400),
    ] {
        Template::compile(&source.repeat(times), Escape::None).expect(source);
    }
    let chain = format!("{{{{ a{} }}}}", " ~ a".repeat(120));
    Template::compile(&chain, Escape::None).expect("a long chain");
    let choice = format!(
        "{{% if a == 0 %}}{}{{% endif %}}",
        "{% elif a == 1 %}x".repeat(40)
    );
    Template::compile(&choice, Escape::None).expect("many branches");
    let nested = "{% if a %}".repeat(12) + &"{% endif %}".repeat(12);
    Template::compile(&nested, Escape::None).expect("nested blocks");
}

/// What can be done with a value.
const USES: &[&str] = &[
    "{{ a }}",
    "{{ a|tojson }}",
    "{{ a|string }}",
    "{{ a ~ '' }}",
    "{{ a|join }}",
    "{{ a == [1] }}",
    "{{ a < [1] }}",
    "{{ 1 in a }}",
    "{{ a in [a] }}",
    "{{ '%s'|format(a) }}",
    "{{ a|replace('1', '') }}",
    "{{ a|upper }}",
    "{{ a|e }}",
    "{{ a|list|length }}",
    "{{ {'k': a}|items }}",
    "{% set x %}{{ a }}{% endset %}",
    "{% filter upper %}{{ a }}{% endfilter %}",
    "{{ a is startingwith '1' }}",
    "{{ a is sameas a }}",
    "{{ a|unique }}",
    "{{ a|sort }}",
    "{{ a|min }}",
    "{{ a|sum }}",
    "{{ a|urlencode }}",
    "{{ a|int(0) }}",
    "{% for x in range(100) %}{% for y in range(100) %}{{ a == a }}{% endfor %}{% endfor %}",
    "{{ a + a }}",
    "{{ {a: 1} }}",
    "{{ l[a] }}",
    "{{ l[:a] }}",
    "{{ 1|default(a) }}",
    "{{ missing|default(a) }}",
    "{{ l|join(a) }}",
    "{{ range(a) }}",
    "{% for x in l %}{{ loop.changed(a) }}{{ loop.cycle(a, a) }}{% endfor %}",
];

/// Templates that try to take much more than their source and event are worth.
fn greedy() -> Vec<String> {
    let doubled = |start: &str, times: usize| {
        format!("{{% set a = {start} %}}") + &"{% set a = [a, a] %}".repeat(times)
    };
    let mut sources = vec![
        "{% set s = s ~ s %}".repeat(40) + "{{ s }}",
        "{% set s = s + s %}".repeat(40) + "{{ s }}",
        "{% set l = l + l %}".repeat(40) + "{{ l|length }}",
        "{% set s %}{{ s }}{{ s }}{% endset %}".repeat(40) + "{{ s }}",
        "{% set s = s|replace('x', 'xx') %}".repeat(40),
        "{% set s = [s, s]|join %}".repeat(40),
        "{% set s = '%s%s'|format(s, s) %}".repeat(40),
        "{% set s = s|tojson|tojson|tojson|tojson %}".repeat(40),
        "{% set s = s|indent(100)|indent(1000000000) %}{{ s }}".repeat(9),
        "{{ m|replace('x', m)|length }}".to_owned(),
        "{{ m|replace('', m)|length }}".to_owned(),
        "{{ m|indent(1000000000) }}{{ ('\n' * 1000)|indent(100000)|length }}".to_owned(),
        "{{ ('x' * 99999999)|length }}".to_owned(),
        "{{ ([s] * 1000000)|join }}".to_owned(),
        "{{ '%99999999d'|format(1) }}{{ '%*d'|format(99999999, 1) }}".to_owned(),
        "{{ l|tojson(indent=1000000000) }}".to_owned(),
        "{{ l|tojson(indent=99999999999999999999) }}".to_owned(),
        "{{ l|batch(4999)|list|tojson }}".to_owned(),
        "{{ l|batch(99999)|list|tojson }}".to_owned(),
        "{{ l|slice(5000)|list|tojson }}".to_owned(),
        "{{ l|slice(99999999)|list|tojson }}".to_owned(),
        "{{ l|batch(0) }}".to_owned(),
        "{{ m|split('')|length }}".to_owned(),
        "{{ m|list|length }}".to_owned(),
        "{{ m|trim(m)|length }}{% for i in l %}{{ m|trim(s) }}{% endfor %}".to_owned(),
        "{% for i in l %}{{ m is lower }}{{ m is upper }}{{ m is eq(m) }}{{ m == m ~ 'a' }}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% if m[-1] and m[50000] and m[1:50000] %}{% endif %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% if m|length %}{% endif %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% if 'y' in m %}{% endif %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = big|sort %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = big|unique|length %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = big|tojson %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = big == big %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = big|map(attribute='n')|sum %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = l|join(m) %}{% endfor %}".to_owned(),
        "{% for a in l %}{% for b in l %}{% for c in l %}{{ s }}{% endfor %}{% endfor %}{% endfor %}".to_owned(),
        "{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}".to_owned(),
        "{% for a in l %}{{ l }}{{ l }}{{ l }}{% endfor %}".repeat(20),
        "{{ range(99999999999)|list }}".to_owned(),
        "{{ m|center(99999999999) }}{{ m|wordwrap(1, true, s) }}".to_owned(),
        "{% for i in range(100000) %}{% set a = m|wordwrap(1) %}{% endfor %}".to_owned(),
        "{{ m|wordwrap(1, true, '') }}".to_owned(),
        "{% for i in range(100000) %}{% if digits %}{% endif %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{{ digits > 1 }}{{ digits|upper|length }}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = m|truncate(99, end=m) %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = m|striptags|wordcount %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set a = big|pprint %}{% endfor %}".to_owned(),
        "{{ (2 ** 64) ** 64 ** 64 }}".to_owned(),
        "{% set a = [] %}".to_owned() + &"{% set a = [a] %}".repeat(900) + "{{ a }}",
        "{% set a = {} %}".to_owned() + &"{% set a = {'a': a} %}".repeat(900) + "{{ a }}",
        "{% set a = 1 %}".to_owned() + &"{% set a = (a,) %}".repeat(900) + "{{ a == a }}",
        "{% set a = [1] %}".to_owned() + &"{% set a = [a]|batch(1) %}".repeat(900) + "{{ a|string }}",
        "{% set a = [1] %}".to_owned() + &"{% set a = [a]|groupby(0)|list %}".repeat(900) + "{{ a|string }}",
    ];
    sources.extend(USES.iter().map(|used| doubled("[1]", 28) + used));
    sources.extend(USES.iter().map(|used| doubled("s", 14) + used));
    sources
}

#[test]
fn no_value_takes_more_than_its_fuel() {
    let text = "x".repeat(50_000);
    let data = json!({"s": text, "m": text.repeat(10), "l": (0..1_000).collect::<Vec<_>>(),
        "big": (0..30_000).map(|n| json!({"n": n})).collect::<Vec<_>>()});
    let mut data = data.to_string();
    data.truncate(data.len() - 1);
    let data = format!("{data},\"digits\":{}}}", "7".repeat(100_000));
    let event = Event::parse_with_id(
        "hookline.events.default.crud.admins",
        None,
        Bytes::from(data),
        EventId::given("1"),
    );
    let context = context(&event.expect("an event"), "admins");
    for (index, source) in greedy().iter().enumerate() {
        let escape = [Escape::Json, Escape::None][index % 2];
        let template = Template::compile(source, escape).expect(source);
        let began = std::time::Instant::now();
        if let Ok(text) = template.render(&context) {
            assert!(text.len() < 20 << 20, "{source}");
        }
        let took = began.elapsed();
        // Without its bound each of them takes minutes or the process.
        assert!(took.as_secs() < 8, "{source} took {took:?}");
    }
}

#[test]
fn real_templates_of_large_events_have_enough_fuel() {
    let data = json!({"s": "é\"".repeat(130_000), "big": (0..30_000).map(|n| json!({"n": n})).collect::<Vec<_>>()});
    for source in [
        "{{ s }}",
        "{{ s|tojson }}",
        "{{ big }}",
        "{{ big|tojson }}",
        "{{ big|length }}{{ big|first }}",
    ] {
        for escape in [Escape::None, Escape::Json] {
            render(source, escape, &data).expect(source);
        }
    }
}
