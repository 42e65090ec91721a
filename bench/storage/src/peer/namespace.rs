//! A network namespace in which a peer listens, so that nothing of it is on an address of this machine.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Where everything of a peer listens. Chunk servers of `MooseFS` and monitors of Ceph refuse loopback addresses, so the
/// loopback device of the namespace has one that is none.
pub(super) const ADDRESS: &str = "10.77.77.1";

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub(super) struct Namespace(String);

impl Namespace {
    /// One that is named after this process and `peer`.
    pub(super) fn new(peer: &str) -> Result<Self> {
        let name = format!("novabench-{}-{peer}", std::process::id());
        ip(&["netns", "add", &name])?;
        let space = Self(name);
        ip(&["-n", &space.0, "link", "set", "lo", "up"])?;
        ip(&["-n", &space.0, "addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"])?;
        Ok(space)
    }

    /// A command that runs in it, and sees the mounts of everybody else.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0));
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whatever cannot be removed now is named after this process and does nothing.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip {} ended with {}: {}",
        arguments.join(" "),
        output.status,
        said.trim()
    );
    Ok(())
}
