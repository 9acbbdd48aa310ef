//! Plugins that say who asks.

use super::{config_of, flag, number};
use crate::schema::field::{Default, Field, TEXT};
use crate::schema::rules;
use crate::schema::table::Entity;

static HEADER: Field = Field::string("").rule(rules::header_name);
static CLAIM: Field = Field::string("").one_of(&["exp", "nbf"]);
static ALGORITHM: Field =
    Field::string("").one_of(&["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"]);

const ANONYMOUS: Field = Field::string("anonymous");
const REALM: Field = Field::string("realm");

pub(super) const KEY_AUTH: &[Field] = &[
    Field::array("key_names", &HEADER)
        .required()
        .default(Default::Texts(&["apikey"])),
    flag("hide_credentials", false),
    ANONYMOUS,
    flag("key_in_header", true),
    flag("key_in_query", true),
    flag("key_in_body", false),
    flag("run_on_preflight", true),
    REALM,
];

pub(super) const BASIC_AUTH: &[Field] = &[
    ANONYMOUS,
    flag("hide_credentials", false),
    Field::string("realm")
        .required()
        .default(Default::Text("service")),
];

pub(super) const ACL: &[Field] = &[
    Field::array("allow", &TEXT),
    Field::array("deny", &TEXT),
    flag("hide_groups_header", false),
    flag("include_consumer_groups", false),
    flag("always_use_authenticated_groups", false),
];

pub(super) const JWT: &[Field] = &[
    Field::set("uri_param_names", &TEXT).default(Default::Texts(&["jwt"])),
    Field::set("cookie_names", &TEXT).default(Default::Texts(&[])),
    Field::string("key_claim_name").default(Default::Text("iss")),
    flag("secret_is_base64", false),
    Field::set("claims_to_verify", &CLAIM),
    ANONYMOUS,
    flag("run_on_preflight", true),
    number("maximum_expiration", 0).between(0, 31_536_000),
    Field::set("header_names", &TEXT).default(Default::Texts(&["authorization"])),
    REALM,
];

pub(super) const HMAC_AUTH: &[Field] = &[
    flag("hide_credentials", false),
    number("clock_skew", 300).between(1, i32::MAX as i64),
    ANONYMOUS,
    flag("validate_request_body", false),
    Field::array("enforce_headers", &TEXT).default(Default::Texts(&[])),
    Field::array("algorithms", &ALGORITHM).default(Default::Texts(&[
        "hmac-sha1",
        "hmac-sha256",
        "hmac-sha384",
        "hmac-sha512",
    ])),
    REALM,
];

pub(super) const OAUTH2: &[Field] = &[
    Field::array("scopes", &TEXT),
    flag("mandatory_scope", false),
    Field::string("provision_key").generated(),
    number("token_expiration", 7_200),
    flag("enable_authorization_code", false),
    flag("enable_implicit_grant", false),
    flag("enable_client_credentials", false),
    flag("enable_password_grant", false),
    flag("hide_credentials", false),
    flag("accept_http_if_already_terminated", false),
    ANONYMOUS,
    flag("global_credentials", false),
    Field::string("auth_header_name").default(Default::Text("authorization")),
    number("refresh_token_ttl", 1_209_600).between(0, 100_000_000),
    flag("reuse_refresh_token", false),
    flag("persistent_refresh_token", false),
    Field::string("pkce")
        .default(Default::Text("lax"))
        .one_of(&["none", "lax", "strict"]),
    REALM,
];

pub(super) fn check(entity: &Entity) -> Option<String> {
    let acl = config_of(entity, "acl")?;
    match (acl.contains_key("allow"), acl.contains_key("deny")) {
        (true, true) => Some(
            "only one of these fields must be non-empty: 'config.allow', 'config.deny'".to_owned(),
        ),
        (false, false) => Some(
            "at least one of these fields must be non-empty: 'config.allow', 'config.deny'"
                .to_owned(),
        ),
        _ => None,
    }
}
