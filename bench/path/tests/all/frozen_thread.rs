//! One thread of a process that stands still while the others run: the kernel's freezer holds a control group that has
//! this thread alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The thread stands still within this time.
const FROZEN_WITHIN: Duration = Duration::from_secs(5);

/// Why no thread can be frozen here.
pub(crate) fn cannot_freeze() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("freezing a thread needs root".to_owned());
    }
    let Some(groups) = groups() else {
        return Some("no cgroup2 file system is mounted, whose freezer could hold a thread".to_owned());
    };
    let tried = groups.join(format!("nova-try-{}", std::process::id()));
    let made = make(&tried);
    remove(&tried);
    made.err().map(|why| format!("no control group of a thread can be made in {}: {why}", groups.display()))
}

/// Where the control groups of version 2 are.
fn groups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let found = mounts.lines().map(|line| line.split(' ')).find_map(|mut fields| {
        let (at, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    })?;
    found.join("cgroup.procs").exists().then_some(found)
}

/// A group for a process, and in it one for a thread of it.
fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::create_dir(folder.join("thread"))?;
    fs::write(folder.join("thread/cgroup.type"), "threaded")
}

fn remove(folder: &Path) {
    let _ = fs::remove_dir(folder.join("thread"));
    let _ = fs::remove_dir(folder);
}

/// A thread that stands still; it goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct FrozenThread {
    pid: i32,
    /// Where the process was.
    home: PathBuf,
    folder: PathBuf,
}

impl FrozenThread {
    /// Freezes the thread `name` of a process.
    pub(crate) fn freeze(pid: i32, name: &str) -> Self {
        let groups = groups().unwrap();
        let of = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let home = of.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let folder = groups.join(format!("nova-frozen-{pid}"));
        make(&folder).unwrap();
        let frozen = Self { pid, home: groups.join(home), folder };
        fs::write(frozen.folder.join("cgroup.procs"), pid.to_string()).unwrap();
        let thread = thread_of(pid, name).unwrap_or_else(|| panic!("process {pid} has no thread {name}"));
        fs::write(frozen.folder.join("thread/cgroup.threads"), thread.to_string()).unwrap();
        fs::write(frozen.folder.join("thread/cgroup.freeze"), "1").unwrap();
        let begun = Instant::now();
        while !frozen.stands_still() {
            assert!(begun.elapsed() < FROZEN_WITHIN, "thread {thread} is not frozen");
            std::thread::sleep(Duration::from_millis(5));
        }
        frozen
    }

    fn stands_still(&self) -> bool {
        fs::read_to_string(self.folder.join("thread/cgroup.events")).unwrap().contains("frozen 1")
    }
}

impl Drop for FrozenThread {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("thread/cgroup.freeze"), "0");
        // It may have ended.
        let _ = fs::write(self.home.join("cgroup.procs"), self.pid.to_string());
        remove(&self.folder);
    }
}

fn thread_of(pid: i32, name: &str) -> Option<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.filter_map(Result::ok).find_map(|thread| {
        let found = fs::read_to_string(thread.path().join("comm")).ok()?;
        (found.trim_end() == name).then(|| thread.file_name().to_str()?.parse().ok())?
    })
}
