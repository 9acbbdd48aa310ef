//! A child process that logs to a file and dies with its owner.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::binaries;
use crate::wait::eventually;

/// A process that can be restarted with the same settings.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    log: PathBuf,
    child: Option<Child>,
    status: Option<ExitStatus>,
}

impl Process {
    /// `name` also names its log in `dir`. [`Self::start`] runs it.
    #[must_use]
    pub fn new(name: &str, program: PathBuf, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program,
            args: Vec::new(),
            env: BTreeMap::new(),
            log: dir.join(format!("{name}.log")),
            child: None,
            status: None,
        }
    }

    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Takes effect at the next start.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    #[must_use]
    pub fn more_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable. The child inherits none.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    pub fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }

    pub fn remove_env(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Sets the time of day that the process sees, in seconds ahead of the true one. Takes effect at the next start.
    pub fn set_clock_ahead(&mut self, seconds: i64) -> Result<()> {
        let library = binaries::wrong_clock()?.display().to_string();
        self.set_env("LD_PRELOAD", library);
        self.set_env("WRONG_CLOCK_SECONDS", seconds.to_string());
        Ok(())
    }

    /// Another run of the program, with the same variables.
    #[must_use]
    pub fn again(&self, name: &str, args: &[&str]) -> Self {
        let dir = self.log.parent().unwrap_or(Path::new(""));
        let mut again = Self::new(name, self.program.clone(), dir).args(args.iter().copied());
        again.env.clone_from(&self.env);
        again
    }

    /// Starts the process, which appends to its log.
    pub fn start(&mut self) -> Result<()> {
        let log = self.open_log()?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            // Of panics; with those of errors, the tail of a log would not show the error.
            .env("RUST_LIB_BACKTRACE", "0")
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        self.child = Some(child);
        self.status = None;
        Ok(())
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> Result<u32> {
        let child = self.child.as_ref().context("not started")?;
        Ok(child.id())
    }

    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Fails with the end of the log if the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.poll()? {
            bail!("{} ended ({status}):\n{}", self.name, self.tail(15));
        }
        Ok(())
    }

    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if the process is gone already.
            drop(child.kill());
            self.status = child.wait().ok();
        }
        self.child = None;
    }

    /// Waits until the process ends. Fails if a signal ended it.
    pub async fn exit_code(&mut self, deadline: Duration) -> Result<i32> {
        let what = format!("{} ends", self.name);
        let status = eventually(deadline, &what, async || {
            self.poll()?.context("still running")
        })
        .await?;
        status
            .code()
            .with_context(|| format!("{} {status}", self.name))
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none()
            && let Some(child) = &mut self.child
        {
            self.status = child.try_wait()?;
        }
        Ok(self.status)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()?)?;
        let pid = Pid::from_raw(pid).context("a process id is not zero")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    fn open_log(&self) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
