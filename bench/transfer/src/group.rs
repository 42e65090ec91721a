//! Control groups: they add up the processor time of everything that an end runs, also of what has ended, and end it all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Killed processes are gone within this time.
const DOWN_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// A control group, removed with all that runs in it when dropped.
#[derive(Debug)]
pub(crate) struct Group(PathBuf);

impl Group {
    /// One that is named after this process and `name`.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
        let root =
            version_2(&mounts).context("no control groups of version 2 are mounted on this machine")?;
        let path = Path::new(root).join(format!("novabench-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("create the control group {}", path.display()))?;
        Ok(Self(path))
    }

    /// The file that a process writes 0 into to belong to it.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Processor time of all that has run in it, in user and system mode together.
    pub(crate) fn used(&self) -> Result<Duration> {
        let path = self.0.join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        used.map(Duration::from_micros).with_context(|| format!("{} has no usage_usec", path.display()))
    }

    /// Ends everything in it, and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1").context("kill a control group")?;
        let until = Instant::now() + DOWN_TIMEOUT;
        while !fs::read_to_string(self.entrance()).context("list a control group")?.is_empty() {
            ensure!(Instant::now() < until, "{} did not end within {DOWN_TIMEOUT:?}", self.0.display());
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        // A process that is gone leaves its group a little later.
        let until = Instant::now() + DOWN_TIMEOUT;
        loop {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                    thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let killed = self.kill();
        if let Err(error) = killed.and_then(|()| self.remove().context("remove a control group")) {
            eprintln!("transfer: {}: {error:#}", self.0.display());
        }
    }
}

/// Where groups of version 2 are mounted, by the list of mounts.
fn version_2(mounts: &str) -> Option<&str> {
    let mut rows = mounts.lines().map(|line| line.split(' ').skip(1));
    rows.find_map(|mut row| row.next().filter(|_| row.next() == Some("cgroup2")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_version_2_are_found_beside_those_of_version_1() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(version_2(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(version_2("tmpfs /tmp tmpfs rw 0 0\n"), None);
    }
}
