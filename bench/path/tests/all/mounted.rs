//! A region with a mount for one test.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::rig::{Rig, bins};
use super::skip::skip;

/// A mount serves, and ends, within this time.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(30);

/// `nova mount` as a process of its own.
pub(crate) struct Mounted {
    child: Child,
    pub(crate) at: PathBuf,
}

/// Why this machine cannot mount; said once, where the test is skipped.
pub(crate) fn cannot_mount() -> Option<&'static str> {
    let why = if fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        "/dev/fuse cannot be opened"
    } else if !rustix::process::geteuid().is_root() {
        "mounting needs root here"
    } else {
        return None;
    };
    skip(why);
    Some(why)
}

impl Mounted {
    /// Mounts `path` of the region at a folder of the test.
    pub(crate) fn start(rig: &Rig, path: &str) -> Self {
        let at = rig.local("mount");
        let mut child = Command::new(bins().join("nova"))
            .arg("--region")
            .arg(rig.nova().region())
            .args(["--json", "mount", path])
            .arg(&at)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mounted = Self { child, at };
        assert!(line.contains("\"mountpoint\""), "the mount did not begin: {line:?}");
        mounted
    }

    /// Ends it as a person does, and checks that it ends well.
    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < MOUNT_TIMEOUT, "the mount does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "the mount ended with {status}");
        assert!(fs::read_dir(&self.at).unwrap().next().is_none(), "it is unmounted");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // A test failed: nothing of it may stay behind.
            let _ = Command::new("umount").arg("-l").arg(&self.at).status();
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// All bytes of a file.
pub(crate) fn bytes_of(path: &Path) -> Vec<u8> {
    let mut found = Vec::new();
    fs::File::open(path).unwrap().read_to_end(&mut found).unwrap();
    found
}
