//! What every peer runs in: a folder, a network namespace, its servers and its mount. All of it ends with this.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nova_measure::namespace::Namespace;
use nova_measure::recipe::Recipe;
use nova_measure::work;
use nova_path::interrupt::Interrupt;
use nova_path::process;
use rustix::fs::{Advice, fadvise};

use super::{ADDRESS, ROW_TIMEOUT};

/// Each step of a start is done within this time, and each command.
const UP_TIMEOUT: Duration = Duration::from_secs(90);
/// An unmounted program takes leave of its servers within this time, or is killed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Killed processes are gone within this time.
const DOWN_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// A path of a socket has at most 107 bytes, and the longest name of one has less than the rest.
const FOLDER_BYTES_MAX: usize = 80;
/// What every peer needs beside its own programs.
const PROGRAMS: [&str; 5] = ["ip", "nsenter", "setpriv", "timeout", "umount"];

/// A process that was started here; others may run below it.
#[derive(Debug)]
struct Server {
    name: String,
    child: Child,
}

impl Server {
    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("the kernel's process ids fit")
    }

    /// Processes of it and below it.
    fn family(&self) -> Result<Vec<i32>> {
        process::family(self.pid()).with_context(|| format!("look for what {} started", self.name))
    }
}

/// A peer's folder, namespace, processes and mount.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) recipe: Recipe,
    folder: PathBuf,
    interrupt: Interrupt,
    mount_words: Vec<String>,
    mounted: Option<Server>,
    servers: Vec<Server>,
    /// Last: the servers are in it.
    space: Namespace,
}

impl Rig {
    /// An empty one for `peer` in `folder`, when `programs` are installed.
    pub(super) fn new(
        peer: &'static str,
        programs: &[&str],
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a peer mounts itself and has a network namespace of its own: run this as root"
        );
        let length = folder.as_os_str().len();
        ensure!(
            length <= FOLDER_BYTES_MAX,
            "{} has {length} bytes and sockets allow {FOLDER_BYTES_MAX}: choose a shorter --folder",
            folder.display()
        );
        for program in PROGRAMS.iter().chain(programs) {
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join(program).is_file());
            ensure!(
                found,
                "{program} is not installed: run scripts/bench-peers storage --peer {peer} --install, as root"
            );
        }
        fs::create_dir_all(folder.join("mount"))?;
        let space = Namespace::new(peer)?;
        space.ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"])?;
        Ok(Self {
            recipe: Recipe::new(peer, folder),
            folder: folder.to_owned(),
            interrupt: interrupt.clone(),
            mount_words: Vec::new(),
            mounted: None,
            servers: Vec::new(),
            space,
        })
    }

    /// Path of `name` in the folder, as settings and arguments want it.
    pub(super) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Makes a folder of the peer's own.
    pub(super) fn make_folder(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("create {path}"))?;
        Ok(path)
    }

    /// Writes a file that the peer is started with, and notes it.
    pub(super) fn write_settings(&mut self, name: &str, text: &str) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("write {path}"))?;
        self.recipe.note_settings(name, text);
        Ok(path)
    }

    /// Notes what a program says of its version.
    pub(super) fn note_version(&mut self, words: &[&str]) -> Result<()> {
        let said = self.ask(words)?;
        self.recipe.note_version(&said);
        Ok(())
    }

    /// Runs a command of the peer's to its end and notes it.
    pub(super) fn run(&mut self, words: &[&str]) -> Result<String> {
        self.recipe.note_command(words);
        self.ask(words)
    }

    /// The same without a note: a question, which changes nothing.
    pub(super) fn ask(&self, words: &[&str]) -> Result<String> {
        self.interrupt.check()?;
        let limit = UP_TIMEOUT.as_secs().to_string();
        let mut command = self.space.command();
        command.args(["timeout", "--kill-after=5", &limit]).args(words).process_group(0);
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {}", words[0]))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} ended with {}: {}", words.join(" "), output.status, said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that is the work of a row, to its end or until it takes too long or a signal comes; notes it.
    pub(super) fn work(&mut self, words: &[&str]) -> Result<String> {
        self.recipe.note_command(words);
        let mut command = self.space.command();
        command.args(["setpriv", "--pdeathsig", "KILL"]).args(words).process_group(0);
        let log = self.folder.join("work.log");
        let done = work::run(&mut command, &log, ROW_TIMEOUT, &self.interrupt)?;
        let what = words.join(" ");
        let status = done.status.with_context(|| format!("{what} took longer than {ROW_TIMEOUT:?}"))?;
        ensure!(status.success(), "{what} ended with {status}: {}", done.said.trim());
        Ok(done.said)
    }

    /// Starts a server that stays in the foreground; it logs to `name.log`.
    pub(super) fn start(&mut self, name: &str, words: &[&str]) -> Result<()> {
        let server = self.spawn(name, words)?;
        self.servers.push(server);
        Ok(())
    }

    fn spawn(&mut self, name: &str, words: &[&str]) -> Result<Server> {
        self.recipe.note_command(words);
        let path = self.folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("open {}", path.display()))?;
        let mut command = self.space.command();
        // Ctrl-C is for this program, which ends the servers itself; without this program none of them goes on.
        command.args(["setpriv", "--pdeathsig", "KILL"]).args(words).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Server { name: name.to_owned(), child })
    }

    /// Tries `done` until it says so. A start takes a bounded time and can be interrupted.
    pub(super) fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let until = Instant::now() + UP_TIMEOUT;
        while !done(self)? {
            self.interrupt.check()?;
            ensure!(
                Instant::now() < until,
                "{} within {UP_TIMEOUT:?}: {what} did not happen; see the logs in {}",
                self.recipe.peer,
                self.folder.display()
            );
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Mounts the peer by a program that stays in the foreground, as often as it takes until its servers answer.
    pub(super) fn mount(&mut self, words: &[&str]) -> Result<()> {
        self.mount_words = words.iter().map(|&word| word.to_owned()).collect();
        self.mount_again()
    }

    fn mount_again(&mut self) -> Result<()> {
        let words = self.mount_words.clone();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.wait("the mount", |rig| {
            if rig.mounted.as_mut().map(|server| server.child.try_wait()).transpose()?.flatten().is_some() {
                rig.mounted = None;
            }
            if rig.mounted.is_none() {
                rig.mounted = Some(rig.spawn("mount", &words)?);
            }
            rig.is_mounted()
        })
    }

    /// Where the peer is mounted.
    pub(super) fn mount_folder(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// The folder that the rows use.
    pub(super) fn shared(&self) -> PathBuf {
        self.mount_folder().join("shared")
    }

    fn is_mounted(&self) -> Result<bool> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
        let mount = self.mount_folder();
        let folder = mount.to_string_lossy();
        Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(&folder)))
    }

    /// Mounts it anew: what the mount's program remembered is forgotten.
    pub(super) fn remount(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount_again()
    }

    fn unmount(&mut self) -> Result<()> {
        let Some(mut server) = self.mounted.take() else { return Ok(()) };
        let mount = self.mount_folder();
        let mut outcome = Ok(());
        // A mount whose program is gone stays in the list; it is taken off like any other.
        if self.is_mounted()? {
            let status = Command::new("umount").arg(&mount).status().context("run umount")?;
            if status.success() {
                wait_for_end(&mut server)?;
            } else {
                let _ = Command::new("umount").arg("-l").arg(&mount).status();
                outcome = Err(anyhow!("{} was busy and is detached only", mount.display()));
            }
        }
        end(server).and(outcome)
    }

    /// Process that serves the mount, which ends every call on it when it is killed.
    pub(super) fn mount_pid(&self) -> Result<i32> {
        self.mounted.as_ref().map(Server::pid).context("it is not mounted")
    }

    /// Drops what files below the folder `name` have in the page cache, after it is on the device.
    pub(super) fn forget_files(&self, name: &str) -> Result<()> {
        forget_in(&self.folder.join(name))
    }

    /// Of all its processes, the mount included.
    pub(super) fn processor_time(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for server in self.servers.iter().chain(&self.mounted) {
            ensure!(
                process::is_alive(server.pid()),
                "{} of {} ended by itself; see the logs in {}",
                server.name,
                self.recipe.peer,
                self.folder.display()
            );
            // One that ends between the two looks takes its time along; the servers of a peer do not.
            sum += server.family()?.into_iter().filter_map(|pid| process::processor_time(pid).ok()).sum();
        }
        Ok(sum)
    }

    /// Ends everything. Nobody is asked to end in order: what they hold is thrown away.
    pub(super) fn end(&mut self) -> Result<()> {
        let mut outcome = self.unmount();
        for server in self.servers.drain(..).rev() {
            outcome = outcome.and(end(server));
        }
        outcome
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("storage: end {}: {error:#}", self.recipe.peer);
        }
    }
}

/// Gives the mount's program time to take leave of its servers: Ceph's would otherwise wait a minute for it to return.
fn wait_for_end(server: &mut Server) -> Result<()> {
    let until = Instant::now() + LEAVE_TIMEOUT;
    while server.child.try_wait()?.is_none() && Instant::now() < until {
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Kills a process and waits until all below it are gone too.
fn end(mut server: Server) -> Result<()> {
    let family = server.family().unwrap_or_default();
    server.child.kill().with_context(|| format!("kill {}", server.name))?;
    server.child.wait().with_context(|| format!("wait for {}", server.name))?;
    let until = Instant::now() + DOWN_TIMEOUT;
    while family.iter().any(|&pid| process::is_alive(pid)) {
        if Instant::now() > until {
            bail!("{} did not end within {DOWN_TIMEOUT:?}", server.name);
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn forget_in(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            forget_in(&path)?;
        } else if about.is_file() {
            // A file may be removed meanwhile; what cannot be dropped stays cached.
            let Ok(file) = File::open(&path) else { continue };
            let _ = file.sync_data();
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
    Ok(())
}
