//! A network namespace in which other programs listen, so that nothing of them is on an address of this machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A network namespace, removed when dropped. Its loopback device is up.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// One that is named after this process and `name`.
    ///
    /// # Errors
    /// When this process may not make one, or `ip` is not installed.
    pub fn new(name: &str) -> Result<Self> {
        let name = format!("novabench-{}-{name}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        let space = Self(name);
        space.ip(&["link", "set", "lo", "up"])?;
        Ok(space)
    }

    /// What `ip netns` calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    /// Changes its devices and addresses by `ip`.
    ///
    /// # Errors
    /// When `ip` refuses, with what it said.
    pub fn ip(&self, words: &[&str]) -> Result<()> {
        run("ip", &[&["-n", &self.0], words].concat())
    }

    /// Changes how its devices send by `tc`.
    ///
    /// # Errors
    /// When `tc` refuses, with what it said.
    pub fn tc(&self, words: &[&str]) -> Result<()> {
        run("tc", &[&["-n", &self.0], words].concat())
    }

    /// A command that runs in it, and sees the mounts of everybody else.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whatever cannot be removed now is named after this process and does nothing.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program).args(words).output().with_context(|| format!("run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {} ended with {}: {}",
        words.join(" "),
        output.status,
        said.trim()
    );
    Ok(())
}
