//! Vault references: `{vault://env/NAME}` in the place of a hook's secret, URL or a header's value, or of a certificate's key,
//! as Kong's. Dispatchers put in what a vault has under the name.
//!
//! The vault `env` has variables of the dispatcher's environment, of which hooks reach only those whose names begin with
//! [`PREFIX`]; hooks of a workspace other than `default` only those with its name in theirs.

use serde_json::{Map, Value};

use crate::secrets;
use crate::subject::{ALL_WORKSPACES, DEFAULT_WORKSPACE, HOOK_KIND};

/// Begins the names of variables that hooks may refer to.
pub const PREFIX: &str = "HOOKLINE_VAULT_";

/// Where secrets are kept.
pub trait Vault {
    /// The secret under a name, for hooks of a workspace. The error quotes no secret.
    fn get(&self, workspace: &str, name: &str) -> Result<String, Error>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "{0} is not {{vault://env/NAME}} or {{vault://env/NAME/KEY}}, with letters, digits, - and _"
    )]
    Form(String),
    #[error("there is no vault '{0}'")]
    NoVault(String),
    #[error("the dispatcher's environment has no {0}")]
    NoVariable(String),
    #[error("{0} is no JSON object with the text '{1}'")]
    NoKey(String, String),
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Environment;

impl Vault for Environment {
    #[expect(
        clippy::disallowed_methods,
        reason = "these are no settings: hooks name them"
    )]
    fn get(&self, workspace: &str, name: &str) -> Result<String, Error> {
        let name = variable(workspace, name);
        std::env::var(&name).map_err(|_| Error::NoVariable(name))
    }
}

/// Whether a text is meant as a reference.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    text.starts_with("{vault://") && text.ends_with('}')
}

/// Whether a reference is well formed, whatever its vault has.
pub fn check(reference: &str) -> Result<(), Error> {
    Reference::parse(reference).map(drop)
}

/// Puts secrets in the place of an entity's references. The error names the field.
pub fn resolve(
    kind: &str,
    entity: &mut Map<String, Value>,
    workspace: &str,
    environment: &impl Vault,
) -> Result<(), String> {
    let mut failed = None;
    let within = if kind == HOOK_KIND { "config." } else { "" };
    secrets::each(kind, entity, |field, value| {
        if !is_reference(value) {
            return;
        }
        let found = Reference::parse(value).and_then(|it| it.get(workspace, environment));
        match found {
            Ok(secret) => *value = secret,
            Err(error) => failed = failed.take().or(Some(format!("{within}{field}: {error}"))),
        }
    });
    failed.map_or(Ok(()), Err)
}

struct Reference<'a> {
    name: &'a str,
    /// In a secret that is a JSON object.
    key: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Result<Self, Error> {
        let malformed = || Error::Form(text.to_owned());
        let inner = text.strip_prefix("{vault://");
        let inner = inner.and_then(|inner| inner.strip_suffix('}'));
        let mut parts = inner.ok_or_else(malformed)?.split('/');
        let (vault, name, key) = (parts.next(), parts.next(), parts.next());
        let is_plain = |text: &&str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !text.is_empty() && text.bytes().all(plain)
        };
        // Two underscores come after a workspace.
        let is_name = |name: &&str| is_plain(name) && !name.replace('-', "_").contains("__");
        let name = name.filter(is_name).ok_or_else(malformed)?;
        if parts.next().is_some() || key.is_some_and(|key| !is_plain(&key)) {
            return Err(malformed());
        }
        match vault {
            Some("env") => Ok(Self { name, key }),
            other => Err(Error::NoVault(other.unwrap_or_default().to_owned())),
        }
    }

    fn get(&self, workspace: &str, vault: &impl Vault) -> Result<String, Error> {
        let secret = vault.get(workspace, self.name)?;
        let Some(key) = self.key else {
            return Ok(secret);
        };
        let object: Option<Value> = serde_json::from_str(&secret).ok();
        let text = object.and_then(|object| Some(object.get(key)?.as_str()?.to_owned()));
        text.ok_or_else(|| Error::NoKey(variable(workspace, self.name), key.to_owned()))
    }
}

/// The variable that hooks of a workspace call by this name.
fn variable(workspace: &str, name: &str) -> String {
    let upper = |text: &str| {
        let letter = |c: char| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
            _ => '_',
        };
        text.chars().map(letter).collect::<String>()
    };
    let name = upper(name);
    match workspace {
        ALL_WORKSPACES | DEFAULT_WORKSPACE => format!("{PREFIX}{name}"),
        workspace => format!("{PREFIX}{}__{name}", upper(workspace)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed(&'static [(&'static str, &'static str)]);

    impl Vault for Fixed {
        fn get(&self, workspace: &str, name: &str) -> Result<String, Error> {
            let name = variable(workspace, name);
            let found = self.0.iter().find(|(known, _)| *known == name);
            let found = found.map(|(_, value)| (*value).to_owned());
            found.ok_or(Error::NoVariable(name))
        }
    }

    const VAULT: Fixed = Fixed(&[
        ("HOOKLINE_VAULT_SLACK_TOKEN", "t0ken"),
        ("HOOKLINE_VAULT_DB", r#"{"user":"u","n":1}"#),
        ("HOOKLINE_VAULT_TEAM_A__SLACK_TOKEN", "of-team"),
    ]);

    fn header(workspace: &str, value: &str) -> Result<String, String> {
        let hook = json!({
            "handler": "webhook",
            "config": {"url": "http://x", "headers": {"authorization": value}},
        });
        let mut hook = hook.as_object().expect("an object").clone();
        resolve(HOOK_KIND, &mut hook, workspace, &VAULT)?;
        let value = &hook["config"]["headers"]["authorization"];
        Ok(value.as_str().expect("a text").to_owned())
    }

    #[test]
    fn references_are_replaced_by_what_the_vault_has() {
        for workspace in ["default", "*"] {
            let found = header(workspace, "{vault://env/slack-token}");
            assert_eq!(found.as_deref(), Ok("t0ken"), "{workspace}");
        }
        assert_eq!(
            header("default", "{vault://env/db/user}").as_deref(),
            Ok("u")
        );
        let plain = "not {vault://env/slack-token}";
        assert_eq!(header("default", plain).as_deref(), Ok(plain));
    }

    #[test]
    fn a_hook_reaches_the_variables_of_its_workspace_only() {
        let reference = "{vault://env/slack-token}";
        assert_eq!(header("team.a", reference).as_deref(), Ok("of-team"));
        assert!(header("team", reference).is_err());
        assert!(header("team.a", "{vault://env/db/user}").is_err());
        assert!(header("default", "{vault://env/team-a--slack-token}").is_err());
        assert!(header("default", "{vault://env/TEAM_A__SLACK_TOKEN}").is_err());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for (reference, says) in [
            ("{vault://env/none}", "HOOKLINE_VAULT_NONE"),
            ("{vault://env/db/n}", "HOOKLINE_VAULT_DB"),
            ("{vault://env/db/nothing}", "'nothing'"),
            ("{vault://aws/x}", "no vault 'aws'"),
            ("{vault://env/}", "{vault://env/NAME}"),
            ("{vault://env/a/b/c}", "{vault://env/NAME}"),
            ("{vault://env/a=b}", "{vault://env/NAME}"),
        ] {
            let error = header("default", reference).expect_err(reference);
            assert!(
                error.starts_with("config.headers.authorization: "),
                "{error}"
            );
            assert!(error.contains(says) && !error.contains(r#""u""#), "{error}");
        }
    }
}
