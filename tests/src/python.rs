//! Runs Python scripts, to verify with third-party code.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::binaries;

/// Runs `script` with `input` on its standard input, and returns its output. It can import the packages
/// that `make servers` fetched. Fails if it exits with another code than 0.
pub fn run(script: &str, input: &str) -> Result<String> {
    let packages = binaries::workspace().join(".servers/python");
    ensure!(
        packages.join("standardwebhooks").is_dir(),
        "{} lacks standardwebhooks: run `make servers`",
        packages.display()
    );
    let mut child = Command::new("python3")
        .args(["-c", script])
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run python3")?;
    let mut stdin = child.stdin.take().context("its input is a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the script failed: {error}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
