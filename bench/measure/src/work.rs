//! A command that is the work of a row: it ends within a limit, or when somebody asks us to stop.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nova_path::interrupt::Interrupt;

/// How often work is looked at, which is counted as time of it.
const PAUSE: Duration = Duration::from_millis(2);

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// What it answered; nothing when it was killed because it took too long.
    pub status: Option<ExitStatus>,
    /// What it said on both of its outputs.
    pub said: String,
    /// From its start to its end.
    pub took: Duration,
}

/// Runs `command` to its end, or kills it after `limit`; what it says goes through the file `log`.
///
/// # Errors
/// When it does not start, or a signal came.
pub fn run(command: &mut Command, log: &Path, limit: Duration, interrupt: &Interrupt) -> Result<Done> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {name}"))?;
    let mut killed = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if interrupt.asked() || begun.elapsed() > limit {
            killed = true;
            child.kill().with_context(|| format!("kill {name}"))?;
        }
        thread::sleep(PAUSE);
    };
    let took = begun.elapsed();
    interrupt.check()?;
    let said = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok(Done { status: (!killed).then_some(status), said, took })
}
