//! How `hookline-loadtest` ends if a goal is missed, and if it cannot do its work.

use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, ensure};

fn run(arguments: &[&str]) -> Result<(ExitStatus, String)> {
    let out = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookline-loadtest"));
    // Without services no fault can hold.
    command.env("HOOKLINE_BIN_DIR", out.path());
    command.env("RUST_BACKTRACE", "1");
    let output = command
        .args(arguments)
        .current_dir(out.path())
        .output()
        .context("cannot run hookline-loadtest")?;
    Ok((output.status, String::from_utf8(output.stderr)?))
}

#[test]
fn a_missed_goal_ends_with_a_line_and_no_backtrace() -> Result<()> {
    let (status, stderr) = run(&["chaos", "--short", "kill"])?;
    ensure!(status.code() == Some(1), "{status}");
    // The servers' logs come before it.
    let last = stderr.lines().last();
    ensure!(last == Some("failed: 1 of 1 faults: kill"), "{stderr}");
    ensure!(!stderr.contains("backtrace"), "{stderr}");
    Ok(())
}

#[test]
fn a_fault_of_the_harness_ends_with_its_causes_and_no_backtrace() -> Result<()> {
    let (status, stderr) = run(&["receiver", "--listen", "127.0.0.1:99999"])?;
    ensure!(status.code() == Some(1), "{status}");
    let chain = "error: cannot listen on 127.0.0.1:99999: invalid port value\n";
    ensure!(stderr == chain, "{stderr}");
    Ok(())
}
