//! Processes of the region: started apart from this one, known by id and start, ended only when they are ours.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Between two looks at a process that is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of a log is looked at for its last lines.
const LOG_TAIL_BYTES: u64 = 4096;
/// How many lines of it are shown.
const LOG_TAIL_LINES: usize = 12;

/// A process that we started. Its id alone may by now be another's, so its start goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Process id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since the machine did.
    pub(crate) started: u64,
}

/// What `/proc/PID/stat` says, as far as we ask.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    threads: u64,
    started: u64,
    cpu_ticks: u64,
}

impl Stat {
    /// A zombie has ended: whoever should collect it may never do so. One of which only the first thread has ended still has
    /// the port that the others listen at.
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

impl Process {
    /// The process with this id, as it is now.
    fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, started: read_stat(pid)?.started })
    }

    /// This process.
    #[cfg(test)]
    pub(crate) fn own() -> Self {
        Self::of(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(self) -> bool {
        self.stat().is_some()
    }

    /// Processor time it has used, in seconds; `None` when it is gone.
    pub(crate) fn cpu_seconds(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "ticks of a process are far below 2^52")]
        self.stat().map(|stat| stat.cpu_ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    fn stat(self) -> Option<Stat> {
        read_stat(self.pid).ok().filter(|stat| stat.started == self.started && !stat.has_ended())
    }

    /// Sends a signal to this very process; false when it has ended.
    pub(crate) fn signal(self, signal: Signal) -> anyhow::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        // The handle keeps its process from being mistaken for a later one with the same id, so it comes first.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("open process {}", self.pid)),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("signal process {}", self.pid)),
        }
    }
}

/// Starts `program --config CONFIG` in a process group of its own, with its output appended to `log`.
pub(crate) fn start(program: &Path, config: &Path, log: &Path) -> anyhow::Result<(Process, Child)> {
    let output = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open log {}", log.display()))?;
    let mut child = Command::new(program)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("share the log")?)
        .stderr(output)
        // A Ctrl-C at the terminal is for `nova`, not for the region.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let looked = i32::try_from(child.id()).map_err(io::Error::other).and_then(Process::of);
    match looked {
        Ok(process) => Ok((process, child)),
        Err(error) => {
            // What cannot be recorded could not be ended later. It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            Err(error).with_context(|| format!("look at process {}", child.id()))
        }
    }
}

/// The processes that run as `PROGRAM --config CONFIG`, as [`start`] starts them, whoever recorded them. For each of
/// `wanted`, a program's name and its configuration, the one that was found.
pub(crate) fn find(wanted: &[(&str, PathBuf)]) -> io::Result<Vec<Option<Process>>> {
    let mut found = vec![None; wanted.len()];
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Only of a process that is called like one of ours: the kernel answers for the command line of another only
        // when that has ended what it is at, and one that waits for a mount whose host is down may take minutes.
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else { continue };
        if !wanted.iter().any(|(program, _)| *program == name.trim_end()) {
            continue;
        }
        // Its start first: should the id change hands in between, the pair fits nobody.
        let Ok(process) = Process::of(pid) else { continue };
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let place = wanted.iter().position(|(program, config)| is_run_of(&line, program, config));
        if let Some(place) = place.filter(|_| process.is_alive()) {
            found[place] = Some(process);
        }
    }
    Ok(found)
}

/// Whether a command line, each argument ended by a zero, is that of `program` with this configuration.
fn is_run_of(line: &[u8], program: &str, config: &Path) -> bool {
    let mut arguments = line.strip_suffix(&[0]).unwrap_or(line).split(|byte| *byte == 0);
    let called = arguments.next().map(|name| Path::new(OsStr::from_bytes(name)));
    called.and_then(Path::file_name) == Some(OsStr::new(program))
        && arguments.eq([b"--config", config.as_os_str().as_bytes()] as [&[u8]; 2])
}

/// Waits until all have ended, for `limit` at most; gives those that have not.
pub(crate) fn wait_gone<T: Copy>(processes: &[(T, Process)], limit: Duration) -> Vec<(T, Process)> {
    let begun = Instant::now();
    loop {
        let left: Vec<_> = processes.iter().copied().filter(|(_, process)| process.is_alive()).collect();
        if left.is_empty() || begun.elapsed() >= limit {
            return left;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn log_tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    };
    match read() {
        Ok(tail) => {
            let lines: Vec<_> = tail.lines().collect();
            lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
        }
        Err(error) => format!("(its log cannot be read: {error})"),
    }
}

fn read_stat(pid: i32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has another form"))
}

/// proc(5): the name stands in parentheses and may itself hold parentheses and spaces, so fields count from the last.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // Field 3 of the page is the first here: state 3, utime 14, stime 15, num_threads 20, starttime 22.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        threads: number(20)?,
        started: number(22)?,
        cpu_ticks: number(14)? + number(15)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> (Process, Child) {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        (Process::of(i32::try_from(child.id()).unwrap()).unwrap(), child)
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 1 0 4242 8 9 10";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', threads: 1, started: 4242, cpu_ticks: 110 }));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_that_is_killed_has_ended_with_the_last_of_its_threads() {
        let ended = |state: char, threads: u64| Stat { state, threads, started: 1, cpu_ticks: 1 }.has_ended();
        assert!(ended('Z', 1) && ended('X', 0));
        assert!(!ended('S', 1) && !ended('Z', 4), "the others may have its sockets still");
    }

    #[test]
    fn a_process_with_our_id_but_another_start_is_left_alone() {
        let (process, mut child) = sleeper();
        let other = Process { started: process.started + 1, ..process };
        assert!(process.is_alive() && !other.is_alive());
        assert!(!other.signal(Signal::KILL).unwrap(), "not ours");
        assert!(process.is_alive());
        assert!(process.signal(Signal::KILL).unwrap());
        // Not collected yet: a zombie counts as gone.
        assert_eq!(wait_gone(&[((), process)], Duration::from_secs(10)), []);
        child.wait().unwrap();
        assert!(!process.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn a_process_is_found_by_the_configuration_it_was_started_with_and_by_nothing_less() {
        let config = Path::new("/r/storage-1/novad.toml");
        assert!(is_run_of(b"/opt/nova/novad\0--config\0/r/storage-1/novad.toml\0", "novad", config));
        for other in [
            &b"/opt/nova/novad\0--config\0/r/storage-2/novad.toml\0"[..],
            b"/opt/nova/novad\0--config\0/r/storage-1/novad.toml\0--explain\0",
            b"/usr/bin/vim\0--config\0/r/storage-1/novad.toml\0",
            b"strace\0/opt/nova/novad\0--config\0/r/storage-1/novad.toml\0",
            b"/opt/nova/novad\0",
            b"",
        ] {
            assert!(!is_run_of(other, "novad", config), "{}", String::from_utf8_lossy(other));
        }
        // A process of the kernel has no command line, and ours is another one.
        assert_eq!(find(&[("novad", config.to_owned())]).unwrap(), [None]);
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let lines: Vec<_> = (0..1000).map(|line| format!("line {line}")).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(log_tail(&log), lines[1000 - LOG_TAIL_LINES..].join("\n"));
        assert!(log_tail(&folder.path().join("none")).contains("cannot be read"));
    }
}
