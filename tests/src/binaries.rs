//! Finds the services, which it builds first, and the servers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

static SERVICES: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies inside the workspace")
}

/// A service, built from the current sources, or taken from `HOOKLINE_BIN_DIR` if that is set.
pub fn service(name: &str) -> Result<PathBuf> {
    let built = SERVICES.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    let dir = built.as_ref().map_err(|error| anyhow!(error.clone()))?;
    let path = dir.join(name);
    ensure!(path.is_file(), "{} is missing", path.display());
    Ok(path)
}

/// A server, as fetched by `make servers`.
pub fn server(name: &str) -> Result<PathBuf> {
    let path = workspace().join(".servers/bin").join(name);
    ensure!(
        path.is_file(),
        "{} is missing: run `make servers`",
        path.display()
    );
    Ok(path)
}

/// A library that makes a process see a wrong time of day, see `wrong_clock.c`.
pub fn wrong_clock() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_wrong_clock().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

fn build_wrong_clock() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let dir = program.parent().context("a program lies in a folder")?;
    let (library, new) = (
        dir.join("wrong_clock.so"),
        tempfile::NamedTempFile::new_in(dir)?,
    );
    let output = Command::new(setting("CXX").unwrap_or_else(|| "c++".into()))
        .args(["-x", "c", "-shared", "-fPIC", "-o"])
        .arg(new.path())
        .arg(workspace().join("tests/src/wrong_clock.c"))
        .output()
        .context("cannot run the C++ compiler")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "wrong_clock.c does not build:\n{said}"
    );
    // Another test may have it in use.
    new.persist(&library)?;
    Ok(library)
}

/// A variable that configures the test run.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "the test run is configured by its caller, not by flags"
)]
pub fn setting(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Builds both services into the folder of this program.
fn build() -> Result<PathBuf> {
    if let Some(dir) = setting("HOOKLINE_BIN_DIR") {
        return Ok(PathBuf::from(dir));
    }
    let program = std::env::current_exe()?;
    let dir = program.parent().context("a program lies in a folder")?;
    // Tests are in <target>/<profile>/deps, other programs in <target>/<profile>.
    let dir = match dir.file_name() {
        Some(name) if name == "deps" => dir.parent().context("a profile lies in <target>")?,
        _ => dir,
    };
    let target = dir.parent().context("a profile lies in <target>")?;
    let profile = dir.file_name().context("a profile has a name")?;
    let mut command = Command::new(setting("CARGO").unwrap_or_else(|| "cargo".into()));
    // The whole workspace, so that features match the caller's build and nothing is built twice.
    command
        .args(["build", "--quiet", "--workspace", "--bins", "--profile"])
        .arg(if profile == "debug" {
            "dev".as_ref()
        } else {
            profile
        })
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace());
    let output = command.output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the services do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(dir.to_owned())
}
