//! A region of processes on this machine that ends with its owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::answer;
use crate::nova::Nova;
use crate::process;

/// How long the processes may take to start.
const UP_TIMEOUT: Duration = Duration::from_secs(150);
/// How long they may take to end.
const DOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often groups are looked at while they catch up.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// What `nova dev up` starts.
#[derive(Clone, Debug)]
pub struct Size {
    /// Raft members.
    pub controllers: u32,
    /// Storage hosts.
    pub storage: u32,
    /// Devices of each of them.
    pub devices: u32,
    /// Shards of every host, in place of what the profile says.
    pub shards: Option<u32>,
    /// Hosts without a device; the first is the edge.
    pub compute: u32,
    /// Size of each device.
    pub device_mib: u64,
    /// Hardware profile of every host; the command's default when absent.
    pub profile: Option<String>,
    /// Scrub without end at this many MiB a second; `None`: one pass a day.
    pub scrub_mib: Option<u64>,
}

impl Size {
    /// Three controllers, three storage hosts, one compute host.
    #[must_use]
    pub fn standard(device_mib: u64) -> Self {
        Self {
            controllers: 3,
            storage: 3,
            devices: 1,
            shards: None,
            compute: 1,
            device_mib,
            profile: None,
            scrub_mib: None,
        }
    }
}

/// A running region. Dropped, it is taken down and its folder removed, unless it is [kept](Region::keep).
#[derive(Debug)]
pub struct Region {
    nova: Nova,
    processes: answer::Region,
    logs: PathBuf,
    kept: bool,
}

impl Region {
    /// Starts the processes of a region in the folder of `nova`; when something goes wrong, logs go to `logs`.
    ///
    /// # Errors
    /// When they do not start; what did start is ended.
    pub fn up(nova: Nova, bins: &Path, size: &Size, logs: &Path) -> Result<Self> {
        let folder = nova.region().to_owned();
        // From here on, what was started is ended whatever happens.
        let nothing = answer::Region { folder: folder.clone(), controllers: Vec::new(), hosts: Vec::new() };
        let mut region = Self { nova, processes: nothing, logs: logs.to_owned(), kept: false };
        let numbers = [
            size.controllers.to_string(),
            size.storage.to_string(),
            size.devices.to_string(),
            size.compute.to_string(),
            size.device_mib.to_string(),
        ];
        let mut arguments: Vec<&std::ffi::OsStr> = vec!["dev".as_ref(), "up".as_ref()];
        arguments.extend(["--folder".as_ref(), folder.as_os_str(), "--bins".as_ref(), bins.as_os_str()]);
        let names = ["--controllers", "--storage", "--devices", "--compute", "--device-mib"];
        for (name, number) in names.iter().zip(&numbers) {
            arguments.extend([name.as_ref(), number.as_ref()] as [&std::ffi::OsStr; 2]);
        }
        if let Some(profile) = &size.profile {
            arguments.extend(["--profile".as_ref(), profile.as_ref()] as [&std::ffi::OsStr; 2]);
        }
        let shards = size.shards.map(|shards| shards.to_string());
        if let Some(shards) = &shards {
            arguments.extend(["--shards".as_ref(), shards.as_ref()] as [&std::ffi::OsStr; 2]);
        }
        let scrub_mib = size.scrub_mib.map(|mib| mib.to_string());
        if let Some(mib) = &scrub_mib {
            arguments.extend(["--scrub-mib".as_ref(), mib.as_ref()] as [&std::ffi::OsStr; 2]);
        }
        match region.nova.call(arguments).limit(UP_TIMEOUT).shielded().visible().answer() {
            Ok(processes) => region.processes = processes,
            Err(error) => {
                return Err(match region.save_logs() {
                    Ok(logs) => {
                        error.context(format!("start a region, whose logs are in {}", logs.display()))
                    }
                    Err(_) => error.context("start a region, which left no logs"),
                });
            }
        }
        region.nova.interrupt().check()?;
        Ok(region)
    }

    /// Runs commands against this region.
    #[must_use]
    pub fn nova(&self) -> &Nova {
        &self.nova
    }

    /// The processes as last seen.
    #[must_use]
    pub fn processes(&self) -> &answer::Region {
        &self.processes
    }

    /// Looks again which processes there are.
    ///
    /// # Errors
    /// When `nova dev status` fails.
    pub fn refresh(&mut self) -> Result<&answer::Region> {
        self.processes = self.nova.call(["dev", "status"]).answer()?;
        Ok(&self.processes)
    }

    /// Processor time all processes have used since they were started.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn processor_time(&self) -> Result<Duration> {
        Ok(self.processor_times()?.into_iter().map(|(_, used)| used).sum())
    }

    /// The same for each process, with the name of its host or controller.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn processor_times(&self) -> Result<Vec<(String, Duration)>> {
        let used = |(name, pid): (String, i32)| {
            let used =
                process::processor_time(pid).with_context(|| format!("{name} (process {pid}) is gone"))?;
            Ok((name, used))
        };
        self.processes.processes().into_iter().map(used).collect()
    }

    /// Ends a host, a controller or the `leader` with SIGKILL; answers which processes it hit.
    ///
    /// # Errors
    /// When nothing was killed.
    pub fn kill(&self, name: &str) -> Result<Vec<answer::KilledProcess>> {
        let answer: answer::Killed = self.nova.call(["dev", "kill", name]).answer()?;
        if answer.killed.is_empty() {
            bail!("`nova dev kill {name}` killed nothing");
        }
        Ok(answer.killed)
    }

    /// Starts what was killed of a host or a controller.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        self.nova.call(["dev", "restart", name]).limit(UP_TIMEOUT).shielded().run()?;
        self.refresh()?;
        Ok(())
    }

    /// Starts everything that does not run, and waits until the region serves.
    ///
    /// # Errors
    /// When it does not; what was started is ended again then.
    pub fn start_again(&mut self) -> Result<()> {
        self.nova.call(["dev", "up"]).limit(UP_TIMEOUT).shielded().run()?;
        self.refresh()?;
        Ok(())
    }

    /// What the controllers say.
    ///
    /// # Errors
    /// When `nova cluster status` fails.
    pub fn status(&self) -> Result<answer::Status> {
        self.nova.call(["cluster", "status"]).answer()
    }

    /// Waits until every group has `replicas` members in sync, at most `limit`; answers how long it took.
    ///
    /// # Errors
    /// When the time is over, with how far it came.
    pub fn wait_in_sync(&self, replicas: usize, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            // Right after a kill or a start the controllers may not answer yet.
            let last = match self.status() {
                Ok(status) if status.all_in_sync(replicas) => return Ok(begun.elapsed()),
                Ok(status) => {
                    format!(
                        "{} of {} groups have {replicas} members in sync",
                        status.groups_with(replicas),
                        status.groups.len()
                    )
                }
                Err(error) => format!("{error:#}"),
            };
            self.nova.interrupt().check()?;
            if begun.elapsed() > limit {
                bail!("groups were not in sync after {limit:?}: {last}");
            }
            thread::sleep(STATUS_EVERY);
        }
    }

    /// Waits until there are groups of `replicas` members, each whole, at most `limit`; answers how long it took.
    ///
    /// # Errors
    /// When the time is over.
    pub fn wait_whole(&self, replicas: usize, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let last = match self.status() {
                Ok(status) if status.groups_whole(replicas) => return Ok(begun.elapsed()),
                Ok(status) => format!("{:?}", status.groups),
                Err(error) => format!("{error:#}"),
            };
            self.nova.interrupt().check()?;
            if begun.elapsed() > limit {
                bail!("groups of {replicas} were not whole after {limit:?}: {last}");
            }
            thread::sleep(STATUS_EVERY);
        }
    }

    /// Waits until the collection has come to rest: no orphan waits, and every device has at least `bytes_free` left; at
    /// most `limit`. Answers how long it took.
    ///
    /// # Errors
    /// When the time is over, with how far it came.
    pub fn wait_collected(&self, bytes_free: u64, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let last = match self.status() {
                Ok(status) => {
                    let free = status.bytes_free_min();
                    if status.collection.blocks_waiting == 0 && free >= bytes_free {
                        return Ok(begun.elapsed());
                    }
                    format!(
                        "{free} of {bytes_free} bytes are free on the fullest device, {:?}",
                        status.collection
                    )
                }
                Err(error) => format!("{error:#}"),
            };
            self.nova.interrupt().check()?;
            if begun.elapsed() > limit {
                bail!("space did not return within {limit:?}: {last}");
            }
            thread::sleep(STATUS_EVERY);
        }
    }

    /// Copies the logs of all processes to where the owner wants them; answers the folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save_logs(&self) -> Result<&Path> {
        let target = &self.logs;
        let mut folders = vec![self.nova.region().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "log") {
                    fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
                    let name = path
                        .strip_prefix(self.nova.region())
                        .unwrap_or(&path)
                        .to_string_lossy()
                        .replace('/', "_");
                    let copy = target.join(name);
                    fs::copy(&path, &copy).with_context(|| format!("copy to {}", copy.display()))?;
                }
            }
        }
        Ok(target)
    }

    /// Lets the region run on when this is dropped; answers its folder.
    pub fn keep(&mut self) -> PathBuf {
        self.kept = true;
        self.nova.region().to_owned()
    }

    /// Ends all processes and removes the folder.
    ///
    /// # Errors
    /// When `nova dev down` fails or leaves a process behind; such a process is killed.
    pub fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.kept, true) {
            return Ok(());
        }
        if !self.nova.region().join("region.toml").exists() {
            return Ok(());
        }
        // The ids as they are now, not as they were before something was restarted.
        let _ = self.refresh();
        let outcome = self.nova.call(["dev", "down", "--wipe"]).limit(DOWN_TIMEOUT).shielded().run();
        let left: Vec<_> = self.processes.processes().into_iter().filter(|(_, pid)| is_ours(*pid)).collect();
        for (_, pid) in &left {
            if let Some(pid) = Pid::from_raw(*pid) {
                // It may have ended by itself since.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = fs::remove_dir_all(self.nova.region());
        outcome?;
        if !left.is_empty() {
            bail!("`nova dev down` left processes behind, killed now: {left:?}");
        }
        Ok(())
    }
}

/// An id may have been given to another process since; only our programs are ended.
fn is_ours(pid: i32) -> bool {
    process::is_alive(pid)
        && process::program(pid)
            .is_some_and(|name| ["novad", "nova-agent", "nova-control"].contains(&name.as_str()))
}

impl Drop for Region {
    fn drop(&mut self) {
        if thread::panicking() && !self.kept {
            match self.save_logs() {
                Ok(folder) => eprintln!("the logs of the region: {}", folder.display()),
                Err(error) => eprintln!("save the logs of the region: {error:#}"),
            }
        }
        if let Err(error) = self.take_down() {
            eprintln!("take the region down: {error:#}");
        }
    }
}
