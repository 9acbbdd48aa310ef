//! Clients of Kong's Admin API, and a tester of its OpenAPI document.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use e2e::tls::{Authority, Validity};
use e2e::{Cluster, Result, binaries};
use tokio::process::Command;

use crate::program;

const TOKEN: &str = "a-token-of-the-admin";
/// What the tester tries; the whole takes a minute.
const TESTER: &str = "from schemathesis.cli import schemathesis; schemathesis()";

fn python_clients() -> Result<PathBuf> {
    let folder = binaries::setting("PYTHON_CLIENTS").map(PathBuf::from);
    folder.context("PYTHON_CLIENTS is not set: run `make compat`")
}

/// Python with the third-party packages, and no others.
fn python(dir: &Path) -> Result<Command> {
    let mut python = Command::new("python3");
    python
        .env("PYTHONPATH", python_clients()?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HOME", dir)
        .current_dir(dir);
    Ok(python)
}

/// Runs a client to its end; it says `done`.
async fn drive(mut client: Command) -> Result {
    let output = client.kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{client:?}: {said} {error}");
    ensure!(said.ends_with("done\n"), "{client:?}: {said}");
    Ok(())
}

/// Files of a certificate, of its key and of its authority.
fn certificate(dir: &Path) -> Result<[PathBuf; 3]> {
    let authority = Authority::new(dir)?;
    let (certificate, key) = authority.issue("localhost", Validity::Valid)?;
    Ok([certificate, key, authority.file().to_owned()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_kong_finds_every_entity_as_it_expects() -> Result {
    let cluster = Cluster::builder().gateways(2).start().await?;
    let dir = tempfile::tempdir()?;
    let mut client = Command::new(program("GO_KONG")?);
    client
        .arg(cluster.admin().base())
        .args(certificate(dir.path())?);
    drive(client).await?;
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_in_python_find_what_they_expect() -> Result {
    let scripts = binaries::workspace().join("tests/compat/python");
    let cluster = Cluster::builder().start().await?;
    for script in ["aio_kong.py", "kongclient_py.py"] {
        let dir = tempfile::tempdir()?;
        let mut client = python(dir.path())?;
        client.arg(scripts.join(script)).arg(cluster.admin().base());
        client.args(&certificate(dir.path())?[..2]);
        drive(client).await?;
    }
    cluster.finish_unchecked().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_token_finds_its_workspace() -> Result {
    let cluster = Cluster::builder()
        .gateway_env("HOOKLINE_RBAC", "on")
        .gateway_env("HOOKLINE_PASSWORD", TOKEN)
        .start()
        .await?;
    let dir = tempfile::tempdir()?;
    let script = binaries::workspace().join("tests/compat/python/gateway_client.py");
    let mut client = python(dir.path())?;
    client.arg(script).args([cluster.admin().base(), TOKEN]);
    drive(client).await?;
    cluster.finish_unchecked().await
}

/// What a request may have beyond types, such as a reference to something that is there, no schema says: so a request
/// that it permits may still be refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_answer_that_the_document_does_not_say() -> Result {
    let cluster = Cluster::builder().start().await?;
    let dir = tempfile::tempdir()?;
    let document = format!("{}/openapi.json", cluster.admin().base());
    let mut tester = python(dir.path())?;
    tester.args([
        "-c",
        TESTER,
        "run",
        &document,
        "--no-color",
        "--workers",
        "2",
    ]);
    tester.args(["--phases", "coverage,fuzzing", "--max-examples", "3"]);
    tester.args([
        "--exclude-checks",
        "positive_data_acceptance",
        "--seed",
        "27",
    ]);
    let output = tester.kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let tail = said.lines().rev().take(200).collect::<Vec<_>>();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    ensure!(output.status.success(), "{tail}");
    ensure!(said.contains("passed"), "{tail}");
    cluster.finish_unchecked().await
}
