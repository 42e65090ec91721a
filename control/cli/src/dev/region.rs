//! `region.toml`: what a development region consists of, and which of its processes are ours.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::dev::process::Process;
use crate::exit::Stop;

/// The file that makes a folder the folder of a region.
const FILE: &str = "region.toml";
/// Held by the one command that changes the region.
pub(crate) const LOCK: &str = "region.lock";

/// A region on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Region {
    /// Its name, as in its certificates.
    pub(crate) name: String,
    /// Where everything of it is.
    pub(crate) folder: PathBuf,
    /// Where its sockets are: below `folder` unless that is too long for the address of a socket.
    pub(crate) sockets: PathBuf,
    /// Where its programs are.
    pub(crate) bins: PathBuf,
    /// Size of each device, MiB.
    pub(crate) device_mib: u64,
    /// Boot of the machine in which the recorded processes were started: ids mean nothing in another.
    pub(crate) boot: String,
    /// From the start of the first process until the region served.
    pub(crate) seconds: f64,
    #[serde(default)]
    pub(crate) controllers: Vec<Controller>,
    #[serde(default)]
    pub(crate) hosts: Vec<Host>,
}

/// A controller: one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Controller {
    /// `controller-1` and so on.
    pub(crate) name: String,
    /// Its id in the Raft groups.
    pub(crate) id: u64,
    /// Where it serves gRPC.
    pub(crate) address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) control: Option<Process>,
}

/// A host: novad and its agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    /// `storage-1`, `compute-1` and so on.
    pub(crate) name: String,
    pub(crate) role: HostRole,
    /// Where its novad listens for other hosts.
    pub(crate) data_address: String,
    /// The files in which it keeps blocks, in the order of novad's configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) devices: Vec<PathBuf>,
    pub(crate) agent_socket: PathBuf,
    pub(crate) novad_socket: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) novad: Option<Process>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<Process>,
}

/// What a host does (Spec 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HostRole {
    Storage,
    Compute,
}

impl HostRole {
    /// The word for it in names and configurations.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Compute => "compute",
        }
    }
}

/// Which program of a host or controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Control,
    Novad,
    Agent,
}

impl Program {
    /// Name of the binary, and of its log.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Control => "nova-control",
            Self::Novad => "novad",
            Self::Agent => "nova-agent",
        }
    }

    /// Name of its configuration in the folder of its host or controller.
    const fn config(self) -> &'static str {
        match self {
            Self::Control => "control.toml",
            Self::Novad => "novad.toml",
            Self::Agent => "agent.toml",
        }
    }
}

/// Which process of the region: by name of its host or controller, and program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: Program,
}

impl Region {
    /// The file of the region in `folder`.
    pub(crate) fn file(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Reads the region in `folder`.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        let path = Self::file(folder);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Stop::not_found(format!(
                    "there is no region in {} (no {FILE}): start one with `nova dev up`, or name another folder \
                     with --region DIR",
                    folder.display()
                )));
            }
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let mut region: Self = toml::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        if region.folder != folder && fs::canonicalize(&region.folder).ok() != fs::canonicalize(folder).ok() {
            bail!(
                "the region in {} was made in {} and cannot be moved: its configurations name that folder",
                folder.display(),
                region.folder.display()
            );
        }
        if region.boot != boot()? {
            region.forget_processes();
        }
        Ok(region)
    }

    /// Reads the region in `folder` for a command that changes it: no other does so while the lock is held. Knows of
    /// processes too that a command which was killed had no time to record.
    pub(crate) fn load_locked(folder: &Path) -> anyhow::Result<(Self, Lock)> {
        // Read once before, so that no lock is left in a folder that is none of ours.
        Self::load(folder)?;
        let lock = Lock::take(folder)?;
        let mut region = Self::load(folder)?;
        region.find_unrecorded()?;
        Ok((region, lock))
    }

    /// Records the processes that run with a configuration of this region at a place where none is recorded.
    pub(crate) fn find_unrecorded(&mut self) -> anyhow::Result<()> {
        let free: Vec<_> = self
            .places()
            .into_iter()
            .filter(|place| !self.process(*place).is_some_and(Process::is_alive))
            .map(|place| (place.name.to_owned(), place.program, self.config(place)))
            .collect();
        let wanted: Vec<_> =
            free.iter().map(|(_, program, config)| (program.word(), config.clone())).collect();
        let found = super::process::find(&wanted).context("look for processes of the region")?;
        for ((name, program, _), process) in free.iter().zip(found) {
            if let Some(process) = process {
                self.set_process(name, *program, process);
            }
        }
        Ok(())
    }

    /// Writes the file anew, whole or not at all.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let text = toml::to_string(self).context("write the region as TOML")?;
        let path = Self::file(&self.folder);
        let new = path.with_extension("toml.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Folder of one host or controller.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Configuration of one process.
    pub(crate) fn config(&self, place: Place<'_>) -> PathBuf {
        self.home(place.name).join(place.program.config())
    }

    /// Log of one process.
    pub(crate) fn log(&self, place: Place<'_>) -> PathBuf {
        self.home(place.name).join(format!("{}.log", place.program.word()))
    }

    /// Every place for a process, in the order in which they are started.
    pub(crate) fn places(&self) -> Vec<Place<'_>> {
        let controllers = self.controllers.iter().map(|controller| (&controller.name, Program::Control));
        let novads = self.hosts.iter().map(|host| (&host.name, Program::Novad));
        let agents = self.hosts.iter().map(|host| (&host.name, Program::Agent));
        controllers.chain(novads).chain(agents).map(|(name, program)| Place { name, program }).collect()
    }

    /// The places of one host or controller.
    pub(crate) fn places_of(&self, name: &str) -> anyhow::Result<Vec<Place<'_>>> {
        let places: Vec<_> = self.places().into_iter().filter(|place| place.name == name).collect();
        if places.is_empty() {
            let mut names: Vec<_> =
                self.controllers.iter().map(|controller| controller.name.as_str()).collect();
            names.extend(self.hosts.iter().map(|host| host.name.as_str()));
            return Err(Stop::not_found(format!("the region has no {name:?}; it has {}", names.join(", "))));
        }
        Ok(places)
    }

    /// The process recorded at a place.
    pub(crate) fn process(&self, place: Place<'_>) -> Option<Process> {
        let host = || self.hosts.iter().find(|host| host.name == place.name);
        match place.program {
            Program::Control => {
                self.controllers.iter().find(|controller| controller.name == place.name)?.control
            }
            Program::Novad => host()?.novad,
            Program::Agent => host()?.agent,
        }
    }

    /// Records a process at a place.
    pub(crate) fn set_process(&mut self, name: &str, program: Program, process: Process) {
        for controller in self.controllers.iter_mut().filter(|controller| controller.name == name) {
            controller.control = Some(process);
        }
        for host in self.hosts.iter_mut().filter(|host| host.name == name) {
            match program {
                Program::Novad => host.novad = Some(process),
                Program::Agent => host.agent = Some(process),
                Program::Control => {}
            }
        }
    }

    /// The processes that run, in the order in which they are started.
    pub(crate) fn running(&self) -> Vec<(Place<'_>, Process)> {
        let recorded = self.places().into_iter().filter_map(|place| Some((place, self.process(place)?)));
        recorded.filter(|(_, process)| process.is_alive()).collect()
    }

    /// Addresses of all controllers.
    pub(crate) fn controller_addresses(&self) -> Vec<String> {
        self.controllers.iter().map(|controller| controller.address.clone()).collect()
    }

    /// The host that local programs of this machine speak to: the first that runs, compute hosts before the others.
    pub(crate) fn edge(&self) -> Option<&Host> {
        let runs = |process: Option<Process>| process.is_some_and(Process::is_alive);
        let running = |role| {
            self.hosts.iter().find(move |host| host.role == role && runs(host.novad) && runs(host.agent))
        };
        running(HostRole::Compute).or_else(|| running(HostRole::Storage))
    }

    fn forget_processes(&mut self) {
        for controller in &mut self.controllers {
            controller.control = None;
        }
        for host in &mut self.hosts {
            (host.novad, host.agent) = (None, None);
        }
    }
}

/// Ends `processes`: asks them to, and kills those that have not ended after `patience`. Gives the killed ones.
pub(crate) fn end<'a>(
    processes: &[(Place<'a>, Process)],
    patience: std::time::Duration,
) -> anyhow::Result<Vec<(Place<'a>, Process)>> {
    /// A killed process ends as soon as its system calls do.
    const KILLED_GONE_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
    for (_, process) in processes {
        process.signal(Signal::TERM)?;
    }
    let left = super::process::wait_gone(processes, patience);
    for (_, process) in &left {
        process.signal(Signal::KILL)?;
    }
    if let Some((place, process)) = super::process::wait_gone(&left, KILLED_GONE_WITHIN).first() {
        bail!(
            "{} of {} (process {}) does not end even when killed",
            place.program.word(),
            place.name,
            process.pid
        );
    }
    Ok(left)
}

/// Held by the one `nova dev` command that may change the region in a folder.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the region in `folder`, which exists.
    pub(crate) fn take(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Stop::unavailable(format!(
                "another `nova dev` command is at work on the region in {}: try again when it is done",
                folder.display()
            ))),
            Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

/// Which boot of the machine this is.
pub(crate) fn boot() -> anyhow::Result<String> {
    let id =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id of the machine")?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn region_in(folder: &Path) -> Region {
        let host = |name: &str, role, devices| Host {
            name: name.into(),
            role,
            data_address: "127.0.0.1:7101".into(),
            devices,
            agent_socket: folder.join(name).join("agent.sock"),
            novad_socket: folder.join(name).join("novad.sock"),
            novad: Some(Process { pid: 11, started: 5 }),
            agent: None,
        };
        let controller = Controller {
            name: "controller-1".into(),
            id: 1,
            address: "127.0.0.1:7401".into(),
            control: Some(Process { pid: 10, started: 4 }),
        };
        Region {
            name: "dev".into(),
            folder: folder.into(),
            sockets: folder.into(),
            bins: "/opt/nova".into(),
            device_mib: 4096,
            boot: boot().unwrap(),
            seconds: 2.5,
            controllers: vec![controller],
            hosts: vec![
                host("storage-1", HostRole::Storage, vec![folder.join("storage-1/device.nova")]),
                host("compute-1", HostRole::Compute, Vec::new()),
            ],
        }
    }

    #[test]
    fn a_saved_region_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let region = region_in(folder.path());
        region.save().unwrap();
        assert_eq!(Region::load(folder.path()).unwrap(), region);
    }

    #[test]
    fn programs_speak_to_a_compute_host_that_runs_else_to_any_host_that_does() {
        let mut region = region_in(Path::new("/r"));
        assert_eq!(region.edge(), None);
        let own = Process::own();
        for host in &mut region.hosts {
            (host.novad, host.agent) = (Some(own), Some(own));
        }
        assert_eq!(region.edge().unwrap().name, "compute-1");
        region.hosts[1].novad = None;
        assert_eq!(region.edge().unwrap().name, "storage-1");
    }

    #[test]
    fn processes_of_an_earlier_boot_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        Region { boot: "earlier".into(), ..region_in(folder.path()) }.save().unwrap();
        let region = Region::load(folder.path()).unwrap();
        assert!(region.places().into_iter().all(|place| region.process(place).is_none()));
    }

    #[test]
    fn a_folder_without_a_region_says_how_to_start_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = Region::load(folder.path()).unwrap_err();
        assert_eq!(crate::exit::kind_of(&error), crate::exit::Kind::NotFound);
        assert!(error.to_string().contains("nova dev up"));
    }

    #[test]
    fn a_region_does_not_move_with_its_folder() {
        let (made, moved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        region_in(made.path()).save().unwrap();
        fs::copy(Region::file(made.path()), Region::file(moved.path())).unwrap();
        assert!(Region::load(moved.path()).unwrap_err().to_string().contains("cannot be moved"));
    }

    #[test]
    fn places_are_controllers_then_data_planes_then_agents() {
        let mut region = region_in(Path::new("/r"));
        let order: Vec<_> =
            region.places().iter().map(|place| (place.name.to_owned(), place.program)).collect();
        assert_eq!(order[0], ("controller-1".into(), Program::Control));
        assert_eq!(order[1], ("storage-1".into(), Program::Novad));
        assert_eq!(order[4], ("compute-1".into(), Program::Agent));
        let process = Process { pid: 9, started: 9 };
        region.set_process("compute-1", Program::Agent, process);
        let place = Place { name: "compute-1", program: Program::Agent };
        assert_eq!(region.process(place), Some(process));
        assert_eq!(region.log(place), Path::new("/r/compute-1/nova-agent.log"));
        assert_eq!(region.config(place), Path::new("/r/compute-1/agent.toml"));
        let error = region.places_of("storage-9").unwrap_err();
        assert!(error.to_string().ends_with("it has controller-1, storage-1, compute-1"));
    }

    #[test]
    fn one_command_at_a_time_changes_a_region() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).unwrap_err();
        assert_eq!(crate::exit::kind_of(&error), crate::exit::Kind::Unavailable);
        drop(lock);
        Lock::take(folder.path()).unwrap();
    }
}
