//! One end of a transfer: a network namespace and a control group, and what runs in both.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nova_measure::namespace::Namespace;
use nova_path::interrupt::Interrupt;

use crate::group::Group;

/// A server listens within this time of its start.
const UP_TIMEOUT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);
/// Enters the control group that is named first, and becomes what comes behind it.
const ENTER: &str = r#"echo 0 >"$0" && exec "$@""#;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Has the files.
    Sender,
    /// Is to have them.
    Receiver,
}

/// An end; what runs in it ends with it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) address: Ipv4Addr,
    pub(crate) space: Namespace,
    group: Group,
    servers: Vec<Child>,
}

impl End {
    /// The end `name`, which will have `address`.
    pub(crate) fn new(name: &str, address: Ipv4Addr) -> Result<Self> {
        Ok(Self { address, space: Namespace::new(name)?, group: Group::new(name)?, servers: Vec::new() })
    }

    /// A command that runs here. It is killed when this program is gone.
    pub(crate) fn command(&self, words: &[String]) -> Command {
        let mut command = self.space.command();
        command.args(["setpriv", "--pdeathsig", "KILL", "sh", "-c", ENTER]);
        // Ctrl-C is for this program, which ends what it started itself.
        command.arg(self.group.entrance()).args(words).process_group(0);
        command
    }

    /// Starts a server that stays in the foreground, and waits until it listens at `port`.
    pub(crate) fn start(
        &mut self,
        words: &[String],
        port: u16,
        log: &Path,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let name = &words[0];
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let until = Instant::now() + UP_TIMEOUT;
        let listens = loop {
            interrupt.check()?;
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = child.try_wait()? {
                break Err(format!("ended with {status}: {}", said().trim()));
            }
            let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", child.id()));
            if table.is_ok_and(|table| listens_at(&table, port)) {
                break Ok(());
            }
            if Instant::now() > until {
                break Err(format!(
                    "does not listen at port {port} within {UP_TIMEOUT:?}: {}",
                    said().trim()
                ));
            }
            thread::sleep(PAUSE);
        };
        self.servers.push(child);
        listens.map_err(|why| anyhow::anyhow!("{name} {why}"))
    }

    /// Waits until the first server that was started ends by itself, until `until` at the latest.
    pub(crate) fn wait_for_server(
        &mut self,
        until: Instant,
        interrupt: &Interrupt,
    ) -> Result<Option<ExitStatus>> {
        let server = self.servers.first_mut().context("no server runs at this end")?;
        loop {
            interrupt.check()?;
            if let Some(status) = server.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > until {
                return Ok(None);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Processor time of all that ever ran here.
    pub(crate) fn used(&self) -> Result<Duration> {
        self.group.used()
    }

    /// Ends everything here.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.group.kill()?;
        self.servers.drain(..).try_for_each(|mut server| server.wait().map(drop).context("end a server"))
    }

    /// Writes what the kernel is to do in this namespace.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<()> {
        let mut command = self.space.command();
        command.args(["sh", "-c", r#"echo "$1" >"/proc/sys/net/$0""#, key, value]);
        let output = command.output().context("run sh")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "set net/{key} to {value}: {}", said.trim());
        Ok(())
    }

    /// What the kernel does in this namespace.
    pub(crate) fn setting(&self, key: &str) -> Result<String> {
        let mut command = self.space.command();
        let output = command.arg("cat").arg(format!("/proc/sys/net/{key}")).output().context("run cat")?;
        ensure!(output.status.success(), "this kernel has no net/{key}");
        Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("transfer: {error:#}");
        }
    }
}

/// Whether somebody waits for connections at `port`, by the kernel's table of a namespace. State 0A is LISTEN.
fn listens_at(table: &str, port: u16) -> bool {
    let end = format!(":{port:04X}");
    table.lines().skip(1).any(|row| {
        let mut fields = row.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|at| at.ends_with(&end)) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_that_is_listened_at_not_one_of_a_connection() {
        let table = "  sl  local_address rem_address   st\n   0: 014D4D0A:24FE 00000000:0000 0A 0:0\n   \
                     1: 014D4D0A:1F90 024D4D0A:24FF 01 0:0\n";
        assert!(listens_at(table, 9470) && !listens_at(table, 8080) && !listens_at(table, 9471));
    }
}
