//! Runs the commands of the documentation's pages as they stand there.
//!
//! Blocks between ```` ```sh ```` fences are one session of bash for each page, in the repository's root, beside a cluster with
//! the addresses of `make up`. Those with ```` ```sh no-run ```` and ```` ```console ```` are left out.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::wait::eventually;
use crate::{SOON, admin, binaries, ports};

/// Fails at an error of the API, and waits for what is logged or counted a moment later.
const PRELUDE: &str = "set -euo pipefail
curl() { command curl --fail-with-body --silent --show-error \"$@\"; }
";

/// The blocks of a page of docs/ with this word behind their fence.
pub fn blocks(page: &str, word: &str) -> Result<Vec<String>> {
    let path = binaries::workspace().join("docs").join(page);
    let text = std::fs::read_to_string(&path).with_context(|| page.to_owned())?;
    let (mut blocks, mut open) = (Vec::new(), None::<(bool, String)>);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((kind == word, String::new())),
            (Some(_), Some(_)) => {
                let (is_wanted, block) = open.take().unwrap_or_default();
                blocks.extend(is_wanted.then_some(block));
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    Ok(blocks)
}

/// Whether a block needs the NATS CLI.
#[must_use]
pub fn uses_nats(block: &str) -> bool {
    block
        .lines()
        .any(|line| line.trim_start().starts_with("nats "))
}

/// Runs blocks of one page, one after the other, with another folder before those of `PATH` if there is one.
pub async fn run(
    page: &str,
    blocks: &[String],
    cluster: &Cluster,
    path: Option<&Path>,
) -> Result<()> {
    let receiver = receiver(cluster).await?;
    let mut script = format!("{PRELUDE}{}", blocks.concat());
    let bare = |url: &str| url.replace("http://", "");
    let gateway = &cluster.gateways[0];
    let mut addresses = vec![
        (":8001", bare(gateway.admin().base())),
        (":8050", bare(gateway.ingest())),
        (":8080", receiver.1.clone()),
        (":8100", gateway.status_address().to_owned()),
    ];
    for (number, dispatcher) in cluster.dispatchers.iter().enumerate() {
        let port = [":9100", ":9101"].get(number).context("two dispatchers")?;
        addresses.push((port, dispatcher.status_address().to_owned()));
    }
    for (port, address) in addresses {
        for host in ["localhost", "127.0.0.1"] {
            script = script.replace(&format!("{host}{port}"), &address);
        }
    }
    script = script.replace(".run/up/logs", &cluster.dir().display().to_string());
    shell(cluster, page, &script, path).await.map(drop)
}

/// Runs a script in the repository's root as the NATS user `operator`. Returns what it wrote.
pub async fn shell(
    cluster: &Cluster,
    what: &str,
    script: &str,
    path: Option<&Path>,
) -> Result<String> {
    let mut search = "/usr/local/bin:/usr/bin:/bin".to_owned();
    if let Some(path) = path {
        search = format!("{}:{search}", path.display());
    }
    let output = Command::new("bash")
        .args(["-c", script])
        .current_dir(binaries::workspace())
        .env("HOME", cluster.dir())
        .env("TMPDIR", cluster.dir())
        .env("PATH", search)
        .env("NATS_URL", cluster.nats.url_as("operator"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(2 * SOON, output).await;
    let output = output.with_context(|| format!("{what} takes too long"))??;
    let [answered, said] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.success(), "{what}: {answered}\n{said}");
    Ok(answered)
}

/// The receiver of `make up`, and its address.
async fn receiver(cluster: &Cluster) -> Result<(Process, String)> {
    let port = ports::free()?;
    let program = binaries::workspace().join("deploy/local/hookline-local");
    let mut process = Process::new("receiver", program, cluster.dir())
        .args(["receiver", "--port", &port.to_string()])
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    process.start()?;
    let address = format!("127.0.0.1:{port}");
    let http = admin::http_client()?;
    eventually(SOON, "the receiver answers", async || {
        process.check_running()?;
        let url = format!("http://{address}/requests");
        http.get(url).send().await?.error_for_status()?;
        Ok(())
    })
    .await?;
    Ok((process, address))
}
