//! What one workspace, and all of them, may have and ask of a node.

mod allowance;
mod quotas;
mod rates;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::str::FromStr;

pub(crate) use allowance::Allowance;
#[expect(unreachable_pub, reason = "an error of this crate has it")]
pub use quotas::Full;
pub(crate) use quotas::{Counts, Quotas, Reserved, kinds};
pub(crate) use rates::{EventRates, Rates, TooFast, Who};

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
#[group(skip)]
pub struct Options {
    /// Hooks of a workspace, with the certificates and authorities that they may name. Those for all workspaces count as the workspace `*`. For some workspaces another number may
    /// follow: `10000,team-a=50,team-b=500`.
    #[arg(
        long,
        env = "HOOKLINE_WORKSPACE_HOOKS",
        value_name = "N[,NAME=N]",
        default_value = "10000"
    )]
    pub workspace_hooks: PerWorkspace,

    /// Entities of a workspace, of all kinds together, in the same form.
    #[arg(
        long,
        env = "HOOKLINE_WORKSPACE_ENTITIES",
        value_name = "N[,NAME=N]",
        default_value = "1000000"
    )]
    pub workspace_entities: PerWorkspace,

    /// Requests a second for a workspace that this node answers, in the same form. [default: no limit]
    #[arg(long, env = "HOOKLINE_WORKSPACE_REQUESTS", value_name = "N[,NAME=N]")]
    pub workspace_requests: Option<PerWorkspace>,

    /// Events a second for a workspace that this node takes over HTTP, in the same form. [default: no limit]
    #[arg(long, env = "HOOKLINE_INGEST_EVENTS", value_name = "N[,NAME=N]")]
    pub ingest_events: Option<PerWorkspace>,

    /// Hooks of all workspaces together. [default: no limit]
    #[arg(long, env = "HOOKLINE_MAX_HOOKS", value_name = "N")]
    pub max_hooks: Option<u64>,

    /// Entities of all workspaces and kinds together. [default: no limit]
    #[arg(long, env = "HOOKLINE_MAX_ENTITIES", value_name = "N")]
    pub max_entities: Option<u64>,

    /// Requests a second that this node answers, and those of one address that are let into no workspace. [default: no
    /// limit]
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_MAX_REQUESTS",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub admin_max_requests: Option<u64>,

    /// Largest request body in bytes.
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_MAX_BODY",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    pub admin_max_body: NonZeroUsize,

    /// Headers of a request.
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_MAX_HEADERS",
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..=1_000)
    )]
    pub admin_max_headers: u16,

    /// Arguments of a query or a form.
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_MAX_ARGUMENTS",
        value_name = "N",
        default_value = "1000"
    )]
    pub admin_max_arguments: NonZeroUsize,

    /// How deep a request's JSON may nest.
    #[arg(
        long,
        env = "HOOKLINE_ADMIN_MAX_NESTING",
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(4..=100)
    )]
    pub admin_max_nesting: u64,
}

/// A number for each workspace, with others for some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PerWorkspace {
    all: u64,
    named: BTreeMap<String, u64>,
}

impl PerWorkspace {
    #[must_use]
    pub fn of(&self, workspace: &str) -> u64 {
        self.named.get(workspace).copied().unwrap_or(self.all)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no number for all workspaces with others for some behind it, such as 1000,team-a=50"
)]
pub struct NotPerWorkspace(String);

impl FromStr for PerWorkspace {
    type Err = NotPerWorkspace;

    fn from_str(text: &str) -> Result<Self, NotPerWorkspace> {
        let wrong = || NotPerWorkspace(text.to_owned());
        let mut parts = text.split(',').map(str::trim);
        let all = parts.next().and_then(|all| all.parse().ok());
        let named = parts.map(|part| {
            let (name, number) = part.split_once('=').ok_or_else(wrong)?;
            let number = number.trim().parse().map_err(|_| wrong())?;
            Ok((name.trim().to_owned(), number))
        });
        Ok(Self {
            all: all.ok_or_else(wrong)?,
            named: named.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_workspaces_have_a_number_of_their_own() {
        let numbers: PerWorkspace = "10, team-a = 2,*=3".parse().expect("numbers");
        let of = ["default", "team-a", "*"].map(|name| numbers.of(name));
        assert_eq!(of, [10, 2, 3]);
        for wrong in ["", "x", "-1", "team-a=2", "1,team-a", "1,team-a=x", "1,2"] {
            assert!(wrong.parse::<PerWorkspace>().is_err(), "{wrong}");
        }
    }
}
