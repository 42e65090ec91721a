//! Runs the `nova` command: with a time limit, with its processor time, and stoppable.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{IsTerminal, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::de::DeserializeOwned;

use crate::interrupt::Interrupt;
use crate::process;

/// How long a command may take unless its caller says otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a running command is looked at.
const POLL_EVERY: Duration = Duration::from_millis(5);
/// How much of what a command wrote to stderr goes into an error.
const ERROR_TAIL_BYTES: usize = 4096;

/// The command, and the region it speaks to.
#[derive(Clone, Debug)]
pub struct Nova {
    program: PathBuf,
    region: PathBuf,
    interrupt: Interrupt,
}

impl Nova {
    /// `nova` of the folder `bins`, for the region in the folder `region`.
    ///
    /// # Errors
    /// When `bins` lacks one of the binaries of a region.
    pub fn new(bins: &Path, region: &Path, interrupt: Interrupt) -> Result<Self> {
        for name in ["nova", "nova-control", "nova-agent", "novad"] {
            let path = bins.join(name);
            if !path.is_file() {
                bail!("{} is missing; run: cargo build --workspace --bins", path.display());
            }
        }
        Ok(Self { program: bins.join("nova"), region: region.to_owned(), interrupt })
    }

    /// The folder of the region.
    #[must_use]
    pub fn region(&self) -> &Path {
        &self.region
    }

    /// What a person would type to speak to this region.
    #[must_use]
    pub fn typed(&self) -> String {
        format!("{} --region {}", self.program.display(), self.region.display())
    }

    /// Whether and by what we are asked to stop.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// A command that has not been started.
    pub fn call<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Call<'_> {
        let arguments: Vec<OsString> = arguments.into_iter().map(|one| one.as_ref().to_owned()).collect();
        Call { nova: self, arguments, limit: CALL_TIMEOUT, shielded: false, visible: false, sink: false }
    }
}

/// A command that has not been started.
#[derive(Debug)]
pub struct Call<'a> {
    nova: &'a Nova,
    arguments: Vec<OsString>,
    limit: Duration,
    shielded: bool,
    visible: bool,
    sink: bool,
}

impl Call<'_> {
    /// Ends the command after `limit`.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Lets the command finish when we are asked to stop: it is what starts or stops the region.
    #[must_use]
    pub fn shielded(mut self) -> Self {
        self.shielded = true;
        self
    }

    /// Shows the command's progress when we run on a terminal.
    #[must_use]
    pub fn visible(mut self) -> Self {
        self.visible = std::io::stderr().is_terminal();
        self
    }

    /// Throws away what the command prints.
    #[must_use]
    pub fn sink(mut self) -> Self {
        self.sink = true;
        self
    }

    /// Starts the command and lets it run beside us.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(self) -> Result<Running> {
        let words: Vec<_> = self.arguments.iter().map(|word| word.to_string_lossy()).collect();
        let what = format!("nova {}", words.join(" "));
        let mut command = Command::new(&self.nova.program);
        command.arg("--region").arg(&self.nova.region).arg("--json");
        command.args(["--progress", if self.visible { "always" } else { "never" }]);
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(if self.sink { Stdio::null() } else { Stdio::piped() });
        command.stderr(if self.visible { Stdio::inherit() } else { Stdio::piped() });
        // A terminal sends Ctrl-C to a whole process group; this command then is in one of its own.
        if self.shielded {
            command.process_group(0);
        }
        let mut child = command.spawn().with_context(|| format!("start {}", self.nova.program.display()))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let interrupt = if self.shielded { Interrupt::default() } else { self.nova.interrupt.clone() };
        Ok(Running { what, child, stdout, stderr, since: Instant::now(), limit: self.limit, interrupt })
    }

    /// Runs the command to its end, whatever its exit code is.
    ///
    /// # Errors
    /// When it does not start or does not end in time.
    pub fn finish(self) -> Result<Finished> {
        self.start()?.wait()
    }

    /// Runs the command; anything but exit code 0 is an error.
    ///
    /// # Errors
    /// When it fails, with what it wrote to stderr.
    pub fn run(self) -> Result<Finished> {
        self.finish()?.success()
    }

    /// Runs the command and reads its answer.
    ///
    /// # Errors
    /// When it fails, or answers something else than a `T`.
    pub fn answer<T: DeserializeOwned>(self) -> Result<T> {
        self.run()?.answer()
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe ends the output; what came before still counts.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// A command under way. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    since: Instant,
    limit: Duration,
    interrupt: Interrupt,
}

impl Running {
    /// Whether the command has ended.
    ///
    /// # Errors
    /// When it is over its time limit, or we are asked to stop.
    pub fn is_over(&self) -> Result<bool> {
        let id = Pid::from_child(&self.child);
        // Left as a zombie, so that its processor time can still be read.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if waitid(WaitId::Pid(id), options).context("wait for a command")?.is_some() {
            return Ok(true);
        }
        self.interrupt.check()?;
        if self.since.elapsed() > self.limit {
            bail!("`{}` did not end within {:?}", self.what, self.limit);
        }
        Ok(false)
    }

    /// Waits for the end of the command, whatever its exit code is.
    ///
    /// # Errors
    /// When it is over its time limit, or we are asked to stop; the command is killed then.
    pub fn wait(mut self) -> Result<Finished> {
        while !self.is_over()? {
            thread::sleep(POLL_EVERY);
        }
        let took = self.since.elapsed();
        let id = i32::try_from(self.child.id()).context("process id")?;
        let processor = process::processor_time(id).context("read the processor time of a command")?;
        let code = self.child.wait().context("wait for a command")?.code();
        let taken = |output: Option<JoinHandle<Vec<u8>>>| {
            output.map(|thread| thread.join().expect("reading a pipe does not panic")).unwrap_or_default()
        };
        let stdout = taken(self.stdout.take());
        let stderr = String::from_utf8_lossy(&taken(self.stderr.take())).into_owned();
        Ok(Finished { what: std::mem::take(&mut self.what), code, stdout, stderr, processor, took })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing when the command has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    what: String,
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
    /// Its own processor time.
    pub processor: Duration,
    /// From start to end.
    pub took: Duration,
}

impl Finished {
    /// Turns anything but exit code 0 into an error.
    ///
    /// # Errors
    /// When the exit code is not 0.
    pub fn success(self) -> Result<Self> {
        if self.code == Some(0) { Ok(self) } else { Err(anyhow!("{self}")) }
    }

    /// The answer the command printed.
    ///
    /// # Errors
    /// When it printed something else than a `T`.
    pub fn answer<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.stdout).with_context(|| {
            let printed = tail(&String::from_utf8_lossy(&self.stdout)).to_owned();
            format!("`{}` printed something unexpected: {printed}", self.what)
        })
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "`{}` ended with exit code {code}", self.what)?,
            None => write!(f, "`{}` was ended by a signal", self.what)?,
        }
        if self.stderr.trim().is_empty() { Ok(()) } else { write!(f, ": {}", tail(self.stderr.trim())) }
    }
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(ERROR_TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::answer::Usage;

    /// A folder with a `nova` that runs `script`, and empty files for the daemons.
    fn bins(script: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nova-control", "nova-agent", "novad"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let nova = folder.path().join("nova");
        fs::write(&nova, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&nova, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn nova(bins: &tempfile::TempDir) -> Nova {
        Nova::new(bins.path(), Path::new("/region"), Interrupt::default()).unwrap()
    }

    #[test]
    fn an_answer_is_read_from_stdout() {
        let bins = bins(r#"echo '{"files":2,"directories":1,"bytes":30}'; echo noise >&2"#);
        let usage: Usage = nova(&bins).call(["fs", "du", "/"]).answer().unwrap();
        assert_eq!((usage.files, usage.bytes), (2, 30));
    }

    #[test]
    fn a_failure_says_what_the_command_said() {
        let bins = bins("echo 'the device is full' >&2; exit 1");
        let error = nova(&bins).call(["fs", "put"]).run().unwrap_err().to_string();
        assert_eq!(error, "`nova fs put` ended with exit code 1: the device is full");
    }

    #[test]
    fn a_command_over_its_limit_is_killed() {
        let bins = bins("exec sleep 60");
        let nova = nova(&bins);
        let call = nova.call(["fs", "ls"]).limit(Duration::from_millis(50));
        let begun = Instant::now();
        assert!(call.run().unwrap_err().to_string().contains("did not end"));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn processor_time_of_an_ended_command_is_known() {
        let bins = bins("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
        let finished = nova(&bins).call(["fs", "ls"]).run().unwrap();
        assert!(finished.processor >= Duration::from_millis(10), "{:?}", finished.processor);
    }

    #[test]
    fn missing_binaries_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Nova::new(folder.path(), Path::new("/region"), Interrupt::default()).unwrap_err();
        assert!(error.to_string().contains("cargo build"), "{error}");
    }
}
