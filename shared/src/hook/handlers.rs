//! The table of handlers. An entry generates the handler's config type, its form in the Admin API, its validation
//! and its documentation. The dispatcher does not compile without a file of the same name, which makes the attempts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::{Address, ConfigField, ConfigValue, EntityId, Flag, Headers, Secret};
use super::custom_request::CustomRequest;
use super::validate::{self, Found};

/// A handler's form in the Admin API.
#[derive(Debug)]
pub struct HandlerForm {
    pub name: &'static str,
    /// One line for the documentation.
    pub about: &'static str,
    /// Whether a new hook's receiver gets a ping.
    pub is_pinged: bool,
    pub fields: &'static [ConfigField],
}

/// Also defines `for_each_handler`, which calls a macro with `file Variant,` for each handler.
macro_rules! handlers {
    (($d:tt) $(
        #[doc = $about:literal]
        $file:ident = $name:literal, $variant:ident($config:ident), pinged: $pinged:literal {
            $( #[doc = $field_about:literal] $field:ident: $type:ty, )*
        }
        check $check:expr;
    )*) => {
        $(
            #[doc = $about]
            #[derive(Debug, Clone, Serialize, Deserialize)]
            pub struct $config {
                $( #[doc = $field_about] pub $field: $type, )*
            }
        )*

        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "handler", content = "config")]
        pub enum HandlerConfig {
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $variant($config),
            )*
        }

        pub static HANDLERS: &[HandlerForm] = &[$(
            HandlerForm {
                name: $name,
                about: $about,
                is_pinged: $pinged,
                fields: &[$(
                    ConfigField {
                        name: stringify!($field),
                        kind: <$type as ConfigValue>::KIND,
                        required: <$type as ConfigValue>::REQUIRED,
                        about: $field_about,
                    },
                )*],
            },
        )*];

        impl HandlerConfig {
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $( Self::$variant(_) => $name, )*
                }
            }

            pub(super) fn check(&self, found: &mut Found) {
                match self {
                    $( Self::$variant(config) => {
                        let check: fn(&$config, &mut Found) = $check;
                        check(config, found);
                    } )*
                }
            }
        }

        #[macro_export]
        macro_rules! for_each_handler {
            ($d callback:ident) => { $d callback! { $( $file $variant, )* } };
        }
    };
}

handlers! { ($)
    /// A JSON POST of the event's data, with `source` and `event` on top.
    webhook = "webhook", Webhook(WebhookConfig), pinged: true {
        /// Where requests go.
        url: Address,
        /// Further request headers.
        headers: Option<Headers>,
        /// Signs the body.
        secret: Option<Secret>,
        /// Signs it too, until `previous_secret_until`: the one before `secret`.
        previous_secret: Option<Secret>,
        /// When `previous_secret` ends. With a new `secret`, and without a `previous_secret`, the old one becomes that.
        previous_secret_until: Option<i64>,
        /// Whether the receiver's certificate is verified. `false` needs `HOOKLINE_ALLOW_UNVERIFIED_TLS`.
        ssl_verify: Flag<true>,
        /// Authorities of the receiver's certificate, in the place of those that dispatchers trust: ids of `ca_certificates`.
        ca_certificates: Option<Vec<String>>,
        /// What the receiver may ask for: `{"id": ...}` of one of the `certificates`.
        client_certificate: Option<EntityId>,
    }
    check |config, found| {
        found.url(&config.url);
        found.headers(config.headers.as_ref(), false);
        found.verification(&config.url, *config.ssl_verify);
        found.authorities(config.ca_certificates.as_deref());
        found.secret("config.secret", config.secret.as_ref());
        let (previous, until) = (config.previous_secret.as_ref(), config.previous_secret_until);
        found.previous_secret(previous, until);
    };

    /// Any request, with templates.
    webhook_custom = "webhook-custom", WebhookCustom(WebhookCustomConfig), pinged: false {
        /// Where requests go.
        url: Address,
        /// Request method, in upper case.
        method: String,
        /// Request headers.
        headers: Option<Headers>,
        /// Whether header values are templates.
        headers_format: Flag<false>,
        /// Keys and values of a JSON object or form.
        payload: Option<BTreeMap<String, String>>,
        /// Whether payload values are templates.
        payload_format: Flag<true>,
        /// The request body; wins over `payload`.
        body: Option<String>,
        /// Whether the body is a template.
        body_format: Flag<true>,
        /// Signs the body.
        secret: Option<Secret>,
        /// Signs it too, until `previous_secret_until`: the one before `secret`.
        previous_secret: Option<Secret>,
        /// When `previous_secret` ends. With a new `secret`, and without a `previous_secret`, the old one becomes that.
        previous_secret_until: Option<i64>,
        /// Whether the receiver's certificate is verified. `false` needs `HOOKLINE_ALLOW_UNVERIFIED_TLS`.
        ssl_verify: Flag<true>,
        /// Authorities of the receiver's certificate, in the place of those that dispatchers trust: ids of `ca_certificates`.
        ca_certificates: Option<Vec<String>>,
        /// What the receiver may ask for: `{"id": ...}` of one of the `certificates`.
        client_certificate: Option<EntityId>,
    }
    check |config, found| {
        found.url(&config.url);
        found.check("config.method", validate::method(&config.method));
        found.headers(config.headers.as_ref(), *config.headers_format);
        found.verification(&config.url, *config.ssl_verify);
        found.authorities(config.ca_certificates.as_deref());
        found.secret("config.secret", config.secret.as_ref());
        let (previous, until) = (config.previous_secret.as_ref(), config.previous_secret_until);
        found.previous_secret(previous, until);
        found.check("config.payload", validate::payload(config.payload.as_ref()));
        if found.violations.is_empty() {
            CustomRequest::check(config, &mut found.violations);
        }
    };

    /// A record in the dispatcher's log.
    log = "log", Log(LogConfig), pinged: false {}
    check |_, _| {};

    /// Lua functions in a sandbox without I/O.
    lambda = "lambda", Lambda(LambdaConfig), pinged: false {
        /// Lua chunks, each of which returns a function `(data, event, source, pid)`. They run in order until one fails.
        functions: Vec<String>,
    }
    check |config, found| {
        found.functions(&config.functions);
    };
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::config::Kind;
    use super::*;

    /// As Markdown.
    fn documentation() -> String {
        let mut text = String::new();
        for handler in HANDLERS {
            let about = handler.about.trim();
            // Writing to a text cannot fail.
            let _ = writeln!(text, "## `{}`\n\n{about}\n", handler.name);
            if handler.fields.is_empty() {
                text.push_str("No config.\n\n");
                continue;
            }
            text.push_str("| `config.` | type | default | |\n| --- | --- | --- | --- |\n");
            for field in handler.fields {
                let (kind, default) = match field.kind {
                    Kind::Text | Kind::Code | Kind::Address => ("text", "none"),
                    Kind::Secret => ("text, write-only", "none"),
                    Kind::Headers => ("texts by name", "`{}`"),
                    Kind::Map => ("texts by name", "none"),
                    Kind::Flag(true) => ("boolean", "`true`"),
                    Kind::Flag(false) => ("boolean", "`false`"),
                    Kind::Codes => ("list of texts", "none"),
                    Kind::Time => ("Unix seconds", "none"),
                    Kind::Certificate => ("an id", "none"),
                    Kind::Authorities => ("list of ids", "none"),
                };
                let default = if field.required { "required" } else { default };
                let (name, about) = (field.name, field.about.trim());
                let _ = writeln!(text, "| `{name}` | {kind} | {default} | {about} |");
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    #[test]
    fn the_documentation_has_every_handler_and_field() {
        let written = include_str!("../../../docs/handlers.md");
        let (_, tables) = written.split_once("\n## ").expect("a first handler");
        let want = documentation();
        assert_eq!(
            format!("## {tables}"),
            want,
            "docs/handlers.md, from its first handler on, should be:\n{want}"
        );
    }
}
