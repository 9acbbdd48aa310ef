//! Plugins, which gateways run: for all requests, or those of a service, route or consumer. The config depends on the name.

mod authentication;
mod logging;
mod rates;
mod traffic;
mod transformers;

use super::field::{Default, Field, Form, Variants};
use super::rules;
use super::table::{Entity, Schema, Use};

pub(super) use rates::REDIS;

static PROTOCOL: Field = Field::string("").one_of(rules::PROTOCOLS);

pub(super) static TABLE: Schema = Schema {
    kind: "plugins",
    path: "plugins",
    endpoint_key: Some("instance_name"),
    fields: &[
        Field::id(),
        Field::string("name").required(),
        Field::string("instance_name").unique().rule(rules::name),
        Field::created_at(),
        Field::updated_at(),
        Field::foreign("route", "routes").cascade(),
        Field::foreign("service", "services").cascade(),
        Field::foreign("consumer", "consumers").cascade(),
        Field::foreign("consumer_group", "consumer_groups").cascade(),
        Field::polymorphic("config", &CONFIG).private(),
        Field::set("protocols", &PROTOCOL)
            .required()
            .default(Default::Texts(&["grpc", "grpcs", "http", "https"])),
        Field::boolean("enabled")
            .required()
            .default(Default::Boolean(true)),
        Field::tags(),
        Field::array("partials", &PARTIAL),
    ],
    uses: &[Use {
        field: "partials",
        kind: "partials",
    }],
    unique_together: &["name", "route", "service", "consumer", "consumer_group"],
    checks: &[rates::check, traffic::check, authentication::check],
    ..Schema::PLAIN
};

static PARTIAL: Field = Field::record(
    "",
    &[
        Field::string("id").required().rule(rules::uuid),
        Field::string("name"),
        Field::string("path"),
    ],
);

static CONFIG: Variants = Variants {
    selector: "name",
    forms: || FORMS,
    unknown: "plugin '{}' not enabled; add it to the 'plugins' configuration property",
};

/// In the order in which Kong names them.
static FORMS: &[Form] = &[
    ("key-auth", authentication::KEY_AUTH),
    ("basic-auth", authentication::BASIC_AUTH),
    ("acl", authentication::ACL),
    ("jwt", authentication::JWT),
    ("hmac-auth", authentication::HMAC_AUTH),
    ("oauth2", authentication::OAUTH2),
    ("cors", traffic::CORS),
    ("rate-limiting", rates::RATE_LIMITING),
    ("rate-limiting-advanced", rates::ADVANCED),
    ("request-transformer", transformers::REQUEST),
    ("response-transformer", transformers::RESPONSE),
    ("http-log", logging::HTTP_LOG),
    ("ip-restriction", traffic::IP_RESTRICTION),
    ("request-size-limiting", traffic::REQUEST_SIZE_LIMITING),
    ("correlation-id", traffic::CORRELATION_ID),
    ("prometheus", logging::PROMETHEUS),
];

/// The names of all plugins.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|(name, _)| *name)
}

/// The config of a plugin with this name.
fn config_of<'a>(entity: &'a Entity, name: &str) -> Option<&'a Entity> {
    let is_it = entity.get("name")?.as_str() == Some(name);
    entity.get("config")?.as_object().filter(|_| is_it)
}

const fn flag(name: &'static str, default: bool) -> Field {
    Field::boolean(name)
        .required()
        .default(Default::Boolean(default))
}

const fn number(name: &'static str, default: i64) -> Field {
    Field::number(name).default(Default::Integer(default))
}
