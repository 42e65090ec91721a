//! `MooseFS` from Debian's packages: a master, three chunk servers and a mount, all on this machine.
//!
//! Its chunk servers refuse loopback addresses, so it runs in a network namespace of its own, whose loopback has an
//! address that is none.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nova_path::process;
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};

const PROGRAMS: [&str; 6] = ["ip", "nsenter", "mfsmaster", "mfschunkserver", "mfsmount", "mfssetgoal"];
/// Where everything listens, in the namespace.
const ADDRESS: &str = "10.77.77.1";
const SERVERS_PORT: u16 = 20_421;
const CLIENTS_PORT: u16 = 20_422;
const CHUNKS_PORT: u16 = 20_423;
const COPIES: u16 = 3;
/// Servers find each other within this time.
const UP_TIMEOUT: Duration = Duration::from_secs(60);
/// The master writes its metadata before it ends.
const DOWN_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// A network namespace, removed when dropped.
#[derive(Debug)]
struct Namespace(String);

impl Namespace {
    fn new() -> Result<Self> {
        let name = format!("novabench-{}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let space = Self(name);
        run(Command::new("ip").args(["-n", &space.0, "link", "set", "lo", "up"]))?;
        run(Command::new("ip").args(["-n", &space.0, "addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"]))?;
        Ok(space)
    }

    /// A command that runs in it, and sees the mounts of everybody else.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whatever cannot be removed now is named after this process and does nothing.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The running servers.
#[derive(Debug)]
pub(super) struct MooseFs {
    folder: PathBuf,
    shared: PathBuf,
    /// Ended in this order: the mount first.
    children: Vec<(String, Child)>,
    /// Last: the servers are in it.
    space: Namespace,
}

impl MooseFs {
    pub(super) fn up(folder: &Path) -> Result<Self> {
        for program in PROGRAMS {
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join(program).is_file());
            ensure!(found, "{program} is not installed: run scripts/bench-peers storage --install, as root");
        }
        let (folder, shared) = (folder.to_owned(), folder.join("mount/shared"));
        fs::create_dir_all(folder.join("mount"))?;
        let mut moose = Self { folder, shared, children: Vec::new(), space: Namespace::new()? };
        moose.start_servers()?;
        moose.start_mount()?;
        moose.wait_for_copies()?;
        Ok(moose)
    }

    pub(super) fn shared(&self) -> &Path {
        &self.shared
    }

    /// Of all its processes.
    pub(super) fn processor_time(&self) -> Result<Duration> {
        let times = self.children.iter().map(|(name, child)| {
            let pid = i32::try_from(child.id()).context("a process id")?;
            process::processor_time(pid).with_context(|| format!("{name} of MooseFS is gone"))
        });
        times.sum()
    }

    /// Drops what the chunk servers' files have in the page cache, after it is on the device.
    pub(super) fn forget_cached(&self) -> Result<()> {
        for server in 1..=COPIES {
            forget_in(&self.folder.join(format!("chunks-{server}")))?;
        }
        Ok(())
    }

    pub(super) fn down(mut self) -> Result<()> {
        self.end()
    }

    fn log(&self, name: &str) -> Result<Stdio> {
        let path = self.folder.join(format!("{name}.log"));
        Ok(File::create(&path).with_context(|| format!("create {}", path.display()))?.into())
    }

    fn start(&mut self, name: &str, command: &mut Command) -> Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.log(name)?);
        let child = command.spawn().with_context(|| format!("start {name} of MooseFS"))?;
        self.children.insert(0, (name.to_owned(), child));
        Ok(())
    }

    fn start_servers(&mut self) -> Result<()> {
        let folder = self.folder.clone();
        let file = |name: &str| folder.join(name).display().to_string();
        fs::create_dir_all(file("master"))?;
        fs::write(file("master/metadata.mfs"), "MFSM NEW")?;
        fs::write(file("exports.cfg"), "10.77.77.0/24 / rw,alldirs,maproot=0\n")?;
        fs::write(file("topology.cfg"), "")?;
        let common = |name: &str| {
            format!(
                "WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {}\nSYSLOG_IDENT = {name}\n",
                file(name)
            )
        };
        let mut master = common("master");
        for (key, port) in [("MATOML", SERVERS_PORT - 1), ("MATOCS", SERVERS_PORT), ("MATOCL", CLIENTS_PORT)]
        {
            master += &format!("{key}_LISTEN_HOST = {ADDRESS}\n{key}_LISTEN_PORT = {port}\n");
        }
        for (key, name) in [("EXPORTS", "exports.cfg"), ("TOPOLOGY", "topology.cfg")] {
            master += &format!("{key}_FILENAME = {}\n", file(name));
        }
        fs::write(file("master.cfg"), master)?;
        let mut command = self.space.command("mfsmaster");
        self.start("master", command.args(["-f", "-c", &file("master.cfg"), "start"]))?;
        for server in 1..=COPIES {
            let (name, chunks) = (format!("server-{server}"), format!("chunks-{server}"));
            fs::create_dir_all(file(&name))?;
            fs::create_dir_all(file(&chunks))?;
            fs::write(file(&format!("{chunks}.cfg")), format!("{}\n", file(&chunks)))?;
            let config = format!(
                "{}HDD_CONF_FILENAME = {}\nHDD_FSYNC_BEFORE_CLOSE = 1\nMASTER_HOST = {ADDRESS}\nMASTER_PORT = \
                 {SERVERS_PORT}\nMASTER_RECONNECTION_DELAY = 1\nCSSERV_LISTEN_HOST = {ADDRESS}\nCSSERV_LISTEN_PORT = {}\n",
                common(&name),
                file(&format!("{chunks}.cfg")),
                CHUNKS_PORT + server,
            );
            fs::write(file(&format!("{name}.cfg")), config)?;
            let mut command = self.space.command("mfschunkserver");
            self.start(&name, command.args(["-f", "-c", &file(&format!("{name}.cfg")), "start"]))?;
        }
        Ok(())
    }

    /// Mounts it once the master answers; the mount ends at once when it does not.
    fn start_mount(&mut self) -> Result<()> {
        let (mount, until) = (self.folder.join("mount"), Instant::now() + UP_TIMEOUT);
        loop {
            let mut command = self.space.command("mfsmount");
            self.start("mount", command.arg(format!("{ADDRESS}:{CLIENTS_PORT}:/")).arg(&mount).arg("-f"))?;
            loop {
                thread::sleep(PAUSE);
                let (_, child) = self.children.first_mut().expect("just started");
                if child.try_wait()?.is_some() {
                    self.children.remove(0);
                    break;
                }
                if is_mounted(&mount)? {
                    return Ok(());
                }
                ensure!(Instant::now() < until, "MooseFS is not mounted within {UP_TIMEOUT:?}: see its logs");
            }
            ensure!(
                Instant::now() < until,
                "the master of MooseFS does not answer: see {}",
                self.folder.display()
            );
        }
    }

    /// Everything in the shared folder is to have three copies; waits until a file has them.
    fn wait_for_copies(&self) -> Result<()> {
        fs::create_dir(&self.shared)?;
        run(self.space.command("mfssetgoal").args(["-r", &COPIES.to_string()]).arg(&self.shared))?;
        let (probe, until) = (self.shared.join("probe"), Instant::now() + UP_TIMEOUT);
        while Instant::now() < until {
            thread::sleep(PAUSE);
            let written = fs::write(&probe, [7; 4096]).and_then(|()| File::open(&probe)?.sync_all());
            let told = self.space.command("mfsfileinfo").arg(&probe).output()?;
            if written.is_ok() && String::from_utf8_lossy(&told.stdout).contains(&format!("copy {COPIES}")) {
                return Ok(());
            }
        }
        bail!("MooseFS does not make {COPIES} copies within {UP_TIMEOUT:?}: see {}", self.folder.display())
    }

    fn end(&mut self) -> Result<()> {
        let mount = self.folder.join("mount");
        if is_mounted(&mount)? {
            run(Command::new("umount").arg(&mount))?;
        }
        let until = Instant::now() + DOWN_TIMEOUT;
        for (name, mut child) in self.children.drain(..) {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // One that has ended already, like the mount, is only waited for.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            while child.try_wait()?.is_none() {
                if Instant::now() > until {
                    child.kill()?;
                    child.wait()?;
                    bail!("{name} of MooseFS did not end within {DOWN_TIMEOUT:?}");
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}

impl Drop for MooseFs {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("storage: end MooseFS: {error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {}", output.status, said.trim());
    Ok(())
}

fn is_mounted(folder: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let folder = folder.to_string_lossy();
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(&folder)))
}

fn forget_in(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_in(&path)?;
        } else if let Ok(file) = File::open(&path) {
            // A chunk may be removed meanwhile; what cannot be dropped stays cached.
            let _ = file.sync_data();
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
    Ok(())
}
