//! How `hookline-loadtest` ends if a goal is missed, and if it cannot do its work.

use std::process::{Command, Output};

use anyhow::{Result, ensure};

fn chaos(fault: &str, backtrace: &str) -> Result<Output> {
    let out = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookline-loadtest"));
    // Without services no fault can hold.
    command.env("HOOKLINE_BIN_DIR", out.path());
    command.env("RUST_BACKTRACE", backtrace);
    command.args(["chaos", "--short", fault, "--out"]);
    Ok(command.arg(out.path()).output()?)
}

#[test]
fn a_missed_goal_ends_with_a_line_and_no_backtrace() -> Result<()> {
    let output = chaos("kill", "1")?;
    ensure!(output.status.code() == Some(1), "{:?}", output.status);
    let stderr = String::from_utf8(output.stderr)?;
    // The servers' logs come before it.
    let last = stderr.lines().last();
    ensure!(last == Some("failed: 1 of 1 faults: kill"), "{stderr}");
    ensure!(!stderr.contains("backtrace"), "{stderr}");
    Ok(())
}

#[test]
fn a_fault_of_the_harness_has_a_backtrace_only_if_asked() -> Result<()> {
    for backtrace in ["0", "1"] {
        let output = chaos("no-such-fault", backtrace)?;
        ensure!(output.status.code() == Some(1), "{:?}", output.status);
        let stderr = String::from_utf8(output.stderr)?;
        let start = "error: there is no fault no-such-fault; there are kill, ";
        ensure!(stderr.starts_with(start), "{stderr}");
        let asked = backtrace == "1";
        ensure!(stderr.contains("backtrace") == asked, "{stderr}");
    }
    Ok(())
}
