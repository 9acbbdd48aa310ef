//! The documentation is true: its commands work, and its lists of settings are those of the services.

use std::process::Command;

use anyhow::{Context as _, ensure};
use e2e::rbac::closed;
use e2e::{Cluster, Result, SOON, binaries, docs, eventually, ports};
use futures::{StreamExt as _, TryStreamExt as _};

/// Pages with commands that tests of their own run.
const ELSEWHERE: [&str; 3] = ["nats-cli.md", "rbac.md", "runbooks.md"];

/// The pages of docs/, in order.
fn pages() -> Result<Vec<String>> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(binaries::workspace().join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && !ELSEWHERE.contains(&&*name) {
            pages.push(name);
        }
    }
    pages.sort_unstable();
    Ok(pages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_every_page_works() -> Result {
    let runs = pages()?.into_iter().map(async |page: String| {
        let mut blocks = docs::blocks(&page, "sh")?;
        // `make compat` runs those.
        blocks.retain(|block| !docs::uses_nats(block));
        if blocks.is_empty() {
            return Ok(0);
        }
        let cluster = Cluster::builder()
            .dispatchers(2)
            .dispatcher_env("HOOKLINE_EGRESS_ALLOW", "127.0.0.0/8,::1/128")
            .start()
            .await?;
        docs::run(&page, &blocks, &cluster, None).await?;
        cluster.finish_unchecked().await?;
        anyhow::Ok(blocks.len())
    });
    let runs = futures::stream::iter(runs).buffer_unordered(2);
    let run: Vec<usize> = runs.try_collect().await?;
    ensure!(run.iter().sum::<usize>() > 30, "{run:?}");
    Ok(())
}

/// A block of docs/operating.md that has this in it.
fn operating(part: &str) -> Result<String> {
    let blocks = docs::blocks("operating.md", "sh no-run")?;
    let mut blocks = blocks.into_iter();
    blocks
        .find(|block| block.contains(part))
        .with_context(|| part.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_password_is_replaced_as_the_page_says() -> Result {
    let cluster = closed().start().await?;
    let refused = cluster.admin().get("/consumers").await?;
    ensure!(refused.status == 401, "{refused:?}");
    // One more node, with the settings of the page but for its ports.
    let (admin, status) = (ports::free()?, ports::free()?);
    let mut rescue = cluster.gateways[0].process().again("rescue", &[]);
    rescue.remove_env("KONG_PASSWORD");
    rescue.remove_env("HOOKLINE_INGEST_LISTEN");
    let settings = operating("HOOKLINE_RBAC=off")?;
    for setting in settings.split_whitespace() {
        if let Some((name, value)) = setting.split_once('=') {
            let value = value
                .replace(":8009", &format!(":{admin}"))
                .replace(":8109", &format!(":{status}"));
            rescue.set_env(name, value);
        }
    }
    rescue.start()?;
    let base = format!("http://127.0.0.1:{admin}");
    let open = e2e::Admin::new(&base)?;
    eventually(SOON, "the other node serves", async || {
        rescue.check_running()?;
        open.get("/consumers").await?.expect(200)
    })
    .await?;
    let commands = operating("/rbac/users -d name=rescue")?;
    let commands = commands.replace("http://127.0.0.1:8009", &base);
    let script = format!(
        "set -euo pipefail\ncurl() {{ command curl -sS --fail-with-body \"$@\"; echo; }}\n{commands}"
    );
    let answers = docs::shell(&cluster, "lost password", &script, None).await?;
    let first = answers.lines().next().context("an answer")?;
    let user: serde_json::Value = serde_json::from_str(first)?;
    let token = user["user_token"].as_str().context("a token")?;
    rescue.terminate()?;
    ensure!(rescue.exit_code(SOON).await? == 0, "{}", rescue.log());
    let rescued = cluster.admin().with_token(token);
    rescued.get("/consumers").await?.expect(200)?;
    rescued.get("/rbac/roles").await?.expect(200)?;
    cluster.finish().await
}

/// One more dispatcher, with the flags of docs/scaling.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_dispatcher_joins_as_the_page_says() -> Result {
    let cluster = Cluster::builder()
        .dispatcher_env("HOOKLINE_EGRESS_ALLOW", "127.0.0.0/8,::1/128")
        .start()
        .await?;
    let blocks = docs::blocks("scaling.md", "sh no-run")?;
    let mut commands = blocks
        .iter()
        .filter_map(|block| block.strip_prefix("target/debug/hookline-dispatcher "));
    let flags = commands.next().context("the command")?;
    let status = format!("127.0.0.1:{}", ports::free()?);
    let flags = flags.replace("127.0.0.1:9102", &status);
    let flags: Vec<_> = flags.split_whitespace().collect();
    let mut another = cluster.dispatchers[0].process().again("another", &flags);
    // The flags say it.
    another.remove_env("HOOKLINE_STATUS_LISTEN");
    another.remove_env("HOOKLINE_EGRESS_ALLOW");
    another.start()?;
    eventually(SOON, "it is ready", async || {
        another.check_running()?;
        let ready = e2e::admin::http_client()?.get(format!("http://{status}/readyz"));
        ensure!(ready.send().await?.status() == 200);
        Ok(())
    })
    .await?;
    another.terminate()?;
    ensure!(another.exit_code(SOON).await? == 0, "{}", another.log());
    cluster.finish().await
}

/// A setting as `--help` tells of it.
struct Setting {
    flag: String,
    variable: String,
    default: String,
    meaning: String,
}

/// The settings of a service under the headings of its `--help`.
fn settings(program: &str) -> Result<Vec<(String, Vec<Setting>)>> {
    let output = Command::new(binaries::service(program)?)
        .arg("--help")
        .output()?;
    ensure!(output.status.success(), "{program}");
    let help = String::from_utf8(output.stdout)?;
    let mut groups: Vec<(String, Vec<Setting>)> = Vec::new();
    for line in help.lines().skip_while(|line| *line != "Options:") {
        if let Some(heading) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            let heading = heading.replace("Options", "General");
            groups.push((heading, Vec::new()));
            continue;
        }
        let (_, group) = groups.last_mut().context("a heading")?;
        let words = line.trim();
        if let Some(flag) = words
            .strip_prefix("--")
            .or_else(|| words.strip_prefix("-h, --"))
        {
            let flag = flag.split([' ', '[', '=']).next().unwrap_or_default();
            group.push(Setting {
                flag: format!("--{flag}"),
                variable: String::new(),
                default: String::new(),
                meaning: String::new(),
            });
        } else if let Some(setting) = group.last_mut() {
            setting.read(words);
        }
    }
    for (_, group) in &mut groups {
        group.retain(|setting| !setting.variable.is_empty());
    }
    Ok(groups)
}

impl Setting {
    /// Another line of the help.
    fn read(&mut self, line: &str) {
        let inside = |name: &str| line.strip_prefix(name)?.strip_suffix(']');
        if let Some(variable) = inside("[env: ") {
            self.variable = variable.trim_end_matches('=').to_owned();
        } else if let Some(default) = inside("[default: ").filter(|_| !self.variable.is_empty()) {
            self.default = format!("`{default}`");
        } else if let Some((value, meaning)) =
            line.strip_prefix("- ").and_then(|of| of.split_once(':'))
        {
            self.meaning += &format!("; `{value}`: {}", meaning.trim());
        } else if !line.starts_with("[possible values: ") && !line.starts_with("Possible values:") {
            if !self.meaning.is_empty() && !line.is_empty() {
                self.meaning.push(' ');
            }
            self.meaning.push_str(line);
        }
        // A default in words.
        if let Some((meaning, default)) = self.meaning.split_once("[default: ")
            && let Some(default) = default.strip_suffix(']')
        {
            self.default = default.to_owned();
            self.meaning = meaning.trim().trim_end_matches('.').to_owned();
        }
    }

    fn row(&self) -> String {
        let (variable, flag) = (&self.variable, &self.flag);
        let (default, meaning) = (&self.default, self.meaning.replace('|', "\\|"));
        format!("| `{variable}` | `{flag}` | {default} | {meaning} |\n").replace("|  |", "| |")
    }
}

/// The tables of docs/settings.md.
fn tables() -> Result<String> {
    let mut text = String::new();
    for (title, program) in [
        ("Gateway", "hookline-gateway"),
        ("Dispatcher", "hookline-dispatcher"),
    ] {
        text += &format!("\n## {title}\n");
        for (heading, group) in settings(program)? {
            if group.is_empty() {
                continue;
            }
            text += &format!("\n### {heading}\n\n");
            text += "| variable | flag | default | meaning |\n| --- | --- | --- | --- |\n";
            text.extend(group.iter().map(Setting::row));
        }
    }
    Ok(text)
}

#[test]
fn every_setting_of_the_help_is_documented() -> Result {
    let tables = tables()?;
    ensure!(tables.matches("| `HOOKLINE_").count() > 60, "{tables}");
    let page = std::fs::read_to_string(binaries::workspace().join("docs/settings.md"))?;
    let shown = page.find("\n## Gateway\n").context("a heading")?;
    ensure!(
        page[shown..] == tables,
        "docs/settings.md, from its heading Gateway on, should be:\n{tables}"
    );
    Ok(())
}
