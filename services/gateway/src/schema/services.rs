//! Upstream services. On input, `url` stands for `protocol`, `host`, `port` and `path`.

use serde_json::Value;
use url::Url;

use super::field::{Default, Field};
use super::rules;
use super::table::{Entity, Schema, Use};
use super::violations::Violations;

pub(super) static TABLE: Schema = Schema {
    kind: "services",
    path: "services",
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("name").unique().rule(rules::name),
        Field::integer("retries")
            .default(Default::Integer(5))
            .between(0, 32_767),
        Field::string("protocol")
            .required()
            .default(Default::Text("http"))
            .one_of(&[
                "grpc",
                "grpcs",
                "http",
                "https",
                "tcp",
                "tls",
                "tls_passthrough",
                "udp",
            ]),
        Field::string("host").required().rule(rules::host),
        Field::integer("port")
            .required()
            .default(Default::Integer(80))
            .between(0, 65_535),
        Field::string("path").rule(rules::path),
        timeout("connect_timeout"),
        timeout("write_timeout"),
        timeout("read_timeout"),
        Field::tags(),
        Field::foreign("client_certificate", "certificates"),
        Field::boolean("tls_verify"),
        Field::integer("tls_verify_depth").between(0, 64),
        Field::array("ca_certificates", &AUTHORITY),
        Field::boolean("enabled")
            .required()
            .default(Default::Boolean(true)),
    ],
    shorthand: Some(expand_url),
    uses: &[Use {
        field: "ca_certificates",
        kind: "ca_certificates",
    }],
    checks: &[path_needs_http, tls_needs_a_secure_protocol],
    ..Schema::PLAIN
};

const fn timeout(name: &'static str) -> Field {
    Field::integer(name)
        .default(Default::Integer(60_000))
        .between(1, 2_147_483_646)
}

fn expand_url(input: &mut Entity, violations: &mut Violations) {
    let url = match input.shift_remove("url") {
        None | Some(Value::Null) => return,
        Some(Value::String(url)) => url,
        Some(_) => return violations.add(&["url"], "expected a string"),
    };
    match parse(&url) {
        Ok(parts) => input.extend(parts),
        Err(message) => violations.add(&["url"], message),
    }
}

fn parse(text: &str) -> Result<Entity, String> {
    if !text.contains("://") {
        return Err("missing scheme in url".to_owned());
    }
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::EmptyHost => "missing host in url".to_owned(),
        error => format!("could not parse url. {error}"),
    })?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or("missing host in url")?;
    let secure = matches!(url.scheme(), "https" | "grpcs" | "tls");
    let port = url.port().unwrap_or(if secure { 443 } else { 80 });
    // Parsing adds the path `/`; only an explicit path counts.
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.contains('/').then(|| url.path().to_owned());
    Ok(Entity::from_iter([
        ("protocol".to_owned(), url.scheme().into()),
        ("host".to_owned(), host.trim_matches(['[', ']']).into()),
        ("port".to_owned(), port.into()),
        ("path".to_owned(), path.map_or(Value::Null, Value::from)),
    ]))
}

static AUTHORITY: Field = Field::string("").rule(rules::uuid);

fn tls_needs_a_secure_protocol(entity: &Entity) -> Option<String> {
    let protocol = entity.get("protocol")?.as_str()?;
    let fields = [
        "client_certificate",
        "tls_verify",
        "tls_verify_depth",
        "ca_certificates",
    ];
    let is_secure = match protocol {
        "https" | "tls" | "wss" => true,
        // These have no authority of their own.
        "grpcs" | "tls_passthrough" => return None,
        _ => false,
    };
    let set = fields.iter().find(|field| entity.contains_key(**field));
    set.filter(|_| !is_secure)
        .map(|_| "failed conditional validation given value of field 'protocol'".to_owned())
}

fn path_needs_http(entity: &Entity) -> Option<String> {
    let protocol = entity.get("protocol")?.as_str()?;
    let plain = matches!(
        protocol,
        "grpc" | "grpcs" | "tcp" | "tls" | "tls_passthrough" | "udp"
    );
    (plain && entity.contains_key("path"))
        .then(|| format!("value must be null: 'path' when 'protocol' is '{protocol}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_url_is_expanded() {
        let parts = |url: &str| Value::Object(parse(url).expect("a url"));
        assert_eq!(
            parts("https://example.com/v2/"),
            json!({"protocol": "https", "host": "example.com", "port": 443, "path": "/v2/"})
        );
        assert_eq!(
            parts("http://example.com:8080"),
            json!({"protocol": "http", "host": "example.com", "port": 8080, "path": null})
        );
    }

    #[test]
    fn an_invalid_url_reads_as_in_kong() {
        assert_eq!(parse("example.com").unwrap_err(), "missing scheme in url");
        assert_eq!(parse("http://").unwrap_err(), "missing host in url");
        assert!(
            parse("http://a b")
                .unwrap_err()
                .starts_with("could not parse url. ")
        );
    }
}
