//! `nova dev up`: lays the region out, starts its processes, waits until it serves. Whatever goes wrong, and whoever
//! asks it to stop, it ends what it has started.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use nova_profile::{Profile, SHARDS_MAX};

use crate::arguments::Global;
use crate::cluster::{self, Readiness};
use crate::dev::config::{self, Plan};
use crate::dev::down::{self, Named};
use crate::dev::interrupt::Interrupt;
use crate::dev::process::{self, Process};
use crate::dev::region::{LOCK, Lock, Place, Program, Region, boot, end};
use crate::dev::status::View;
use crate::exit::{Kind, Stop, kind_of};
use crate::output;
use crate::progress::Meter;

/// How long a region may take until it serves; making its devices is part of it.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at whether it serves.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Room for logs, metadata and certificates beside the devices.
const SPARE_BYTES: u64 = 1 << 30;
/// Smallest device that novad makes.
const DEVICE_MIB_MIN: u64 = 256;
const CONTROLLERS_DEFAULT: u16 = 3;
const STORAGE_DEFAULT: u16 = 3;
const COMPUTE_DEFAULT: u16 = 1;
const DEVICES_DEFAULT: u16 = 1;
const DEVICE_MIB_DEFAULT: u64 = 4096;
const PROFILE_DEFAULT: &str = "ci";

/// What the region is to be like. A region that exists has its answers already.
#[derive(Args, Debug, Default)]
pub(crate) struct Up {
    /// Folder of the region; made when it is not there. Default: that of --region.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Controllers: an odd number. Default: 3.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=7))]
    controllers: Option<u16>,
    /// Storage hosts: at least 3, one for each replica. Default: 3.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=64))]
    storage: Option<u16>,
    /// Compute hosts: edges without blocks of their own. Default: 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    compute: Option<u16>,
    /// Devices of each storage host. Default: 1.
    #[arg(long, visible_alias = "drives", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=24))]
    devices: Option<u16>,
    /// Shards of each host's novad, in place of what the profile says: each has memory of its own, and a host takes a run of
    /// as many ports. At most one for each core of this machine.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    shards: Option<u16>,
    /// Size of each device, in MiB. Default: 4096.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(DEVICE_MIB_MIN..=1 << 24))]
    device_mib: Option<u64>,
    /// Verify every device without end at this many MiB a second, for tests and demonstrations. Default: novad's own
    /// pace, one pass a day.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    scrub_mib: Option<u64>,
    /// Hardware profile of every host: laptop, ci, or a file. Default: ci, whose memory is small.
    #[arg(long, value_name = "NAME|PATH")]
    profile: Option<String>,
    /// Folder with nova-control, nova-agent and novad. Default: where this program is.
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
    /// Stay until Ctrl-C or SIGTERM, and then end the region.
    #[arg(long)]
    foreground: bool,
}

/// A process that this command started.
#[derive(Debug)]
pub(super) struct Started {
    name: String,
    program: Program,
    process: Process,
    child: Child,
}

impl Started {
    /// An error with the end of its log when it has ended.
    pub(super) fn check(&mut self, region: &Region) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait().context("look at a process")? else { return Ok(()) };
        let log = region.log(Place { name: &self.name, program: self.program });
        bail!(
            "{} of {} ended early ({status}). The end of {}:\n{}",
            self.program.word(),
            self.name,
            log.display(),
            process::log_tail(&log)
        )
    }

    /// Whether it runs; when it does not, says so.
    fn says_its_end(&mut self) -> bool {
        let Ok(Some(status)) = self.child.try_wait() else { return true };
        output::say(format_args!(
            "nova: {} of {} ended ({status}): `nova dev restart {}` starts it again",
            self.program.word(),
            self.name,
            self.name
        ));
        false
    }

    /// Its name for people and scripts.
    pub(super) fn named(&self) -> Named {
        Named { name: self.name.clone(), process: self.program.word(), pid: self.process.pid }
    }
}

pub(super) fn run(global: &Global, up: &Up) -> anyhow::Result<()> {
    let folder = match &up.folder {
        Some(folder) => std::path::absolute(folder)?,
        None => global.region_folder()?,
    };
    let interrupt = Interrupt::catch()?;
    // Looked at twice: before anything is made, and when no other command makes anything.
    let is_new = |folder: &Path| match Region::file(folder).exists() {
        true => Ok(false),
        false => check_empty(folder).map(|()| true),
    };
    is_new(&folder)?;
    config::make_private(&folder)?;
    let lock = Lock::take(&folder)?;
    let mut region = if is_new(&folder)? { lay_out(&folder, up)? } else { reopen(&folder, up)? };
    check_bins(&region.bins)?;

    let begun = Instant::now();
    let mut meter = Meter::steps(global.progress);
    let started = start_all(&mut region, &mut meter, &interrupt).and_then(|mut started| {
        wait_ready(&region, &mut started, &mut meter, &interrupt)?;
        Ok(started)
    });
    drop(meter);
    let mut started = match started {
        Ok(started) => started,
        Err(error) => return Err(take_down(&region, error)),
    };
    region.seconds = round_ms(begun.elapsed());
    region.save()?;
    output::print(global.json, &View::of(&region), |view| {
        let hint = match std::env::var_os("NOVA_REGION") {
            Some(set) if Path::new(&set) == region.folder => String::new(),
            _ if global.region_folder().is_ok_and(|default| default == region.folder) => String::new(),
            _ => format!("export NOVA_REGION={}\n", region.folder.display()),
        };
        let end = if up.foreground { "Ctrl-C ends it\n" } else { "" };
        format!("{}serves after {:.1} s\n{hint}{end}", view.text(), region.seconds)
    })?;
    if up.foreground {
        drop(lock);
        return stay(&region.folder, &mut started, &interrupt);
    }
    // Asked a moment too late to be seen above: whoever did does not want the region.
    interrupt.check().map_err(|error| take_down(&region, error))
}

/// Ends what was started of a region that is not to run; gives `error` with what was done about it. The folder stays,
/// for its logs.
fn take_down(region: &Region, error: anyhow::Error) -> anyhow::Error {
    let running = region.running().len();
    output::say(format_args!(
        "nova: ends the {running} processes that were started; this may take some seconds"
    ));
    let done = match down::end_all(region) {
        Ok(killed) => format!("{}, {} of them killed", processes_ended(running), killed.len()),
        Err(left) => format!("not everything of it could be ended ({left:#}; `nova dev down` tries again)"),
    };
    error.context(format!("the region does not run: {done}; logs are below {}", region.folder.display()))
}

fn processes_ended(count: usize) -> String {
    format!("{count} processes were ended again, hosts before controllers")
}

/// Waits until somebody asks for the end of the region, or it is taken down by another command.
fn stay(folder: &Path, started: &mut Vec<Started>, interrupt: &Interrupt) -> anyhow::Result<()> {
    let name = loop {
        if let Some(name) = interrupt.asked() {
            break name;
        }
        started.retain_mut(Started::says_its_end);
        // Another command may have started some of it again.
        let runs = || Region::load(folder).is_ok_and(|region| !region.running().is_empty());
        if started.is_empty() && !runs() {
            return Err(Stop::not_found("nothing of the region runs any more: it was taken down"));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    output::say(format_args!("nova: {name}: ends the region; this may take some seconds"));
    let begun = Instant::now();
    let loaded = loop {
        match Region::load_locked(folder) {
            // Another command is at work, and must not leave something behind that it starts now.
            Err(error) if kind_of(&error) == Kind::Unavailable && begun.elapsed() < down::PATIENCE => {
                std::thread::sleep(LOOK_EVERY);
            }
            loaded => break loaded,
        }
    };
    let (ended, killed) = match &loaded {
        Ok((region, _lock)) => (region.running().len(), down::end_all(region)?.len()),
        // The folder is gone, or does not read: what we started is ours all the same.
        Err(_) => {
            let own: Vec<_> = started
                .iter()
                .map(|one| (Place { name: &one.name, program: one.program }, one.process))
                .collect();
            (own.len(), end(&own, down::PATIENCE)?.len())
        }
    };
    output::say(format_args!("nova: {}, {killed} of them killed", processes_ended(ended)));
    loaded.map(|_| ())
}

fn round_ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A folder in which a region may be made: not there, or empty but for the files of ours.
fn check_empty(folder: &Path) -> anyhow::Result<()> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("list {}", folder.display())),
        Ok(entries) => {
            for entry in entries {
                let name = entry.with_context(|| format!("list {}", folder.display()))?.file_name();
                if name != LOCK {
                    return Err(Stop::usage(format!(
                        "{} holds {} and no region: name an empty folder, or one that is not there (or delete this one, \
                         if it is what a `nova dev up` left that was killed)",
                        folder.display(),
                        Path::new(&name).display()
                    )));
                }
            }
            Ok(())
        }
    }
}

/// The region that is in the folder, when nothing of it runs and it is what was asked for.
fn reopen(folder: &Path, up: &Up) -> anyhow::Result<Region> {
    let mut region = Region::load(folder)?;
    region.find_unrecorded()?;
    let running = region.running();
    if let Some((place, process)) = running.first() {
        let all = region.places().len();
        bail!(
            "{} of the region in {} ({} of {} is process {}): `nova dev down` ends it{}",
            if running.len() == all {
                "all processes run".to_owned()
            } else {
                format!("{} of {all} processes run", running.len())
            },
            folder.display(),
            place.program.word(),
            place.name,
            process.pid,
            if running.len() == all {
                ""
            } else {
                ", `nova dev restart NAME` starts a part that does not run"
            }
        );
    }
    let count = |word: &str| region.hosts.iter().filter(|host| host.role.word() == word).count();
    let differs = up.controllers.is_some_and(|asked| usize::from(asked) != region.controllers.len())
        || up.storage.is_some_and(|asked| usize::from(asked) != count("storage"))
        || up.compute.is_some_and(|asked| usize::from(asked) != count("compute"))
        || up.devices.is_some_and(|asked| {
            region.hosts.iter().any(|host| ![0, usize::from(asked)].contains(&host.devices.len()))
        })
        || up.device_mib.is_some_and(|asked| asked != region.device_mib)
        || up.shards.is_some()
        || up.scrub_mib.is_some()
        || up.profile.is_some();
    if differs {
        return Err(Stop::usage(format!(
            "the region in {} exists and was made otherwise: start it without these options, or delete it with \
             `nova dev down --wipe`",
            folder.display()
        )));
    }
    if let Some(bins) = &up.bins {
        region.bins = std::path::absolute(bins)?;
    }
    region.boot = boot()?;
    check_addresses(&region)?;
    if config::upgrade(&region)? {
        output::say(format_args!(
            "nova: the region has a root key now, in {}/root.key: keep a copy of it. The controllers take over \
             region.key; when `nova key ls` shows the default domain, region.key can be removed",
            folder.display()
        ));
    }
    config::make_socket_folders(&region)?;
    Ok(region)
}

/// Refuses to start where somebody else listens: the addresses of a region are part of what its controllers remember.
fn check_addresses(region: &Region) -> anyhow::Result<()> {
    let controllers = region.controllers.iter().map(|controller| (&controller.name, &controller.address));
    let hosts = region.hosts.iter().map(|host| (&host.name, &host.data_address));
    let shards = config::shards(region)?;
    for (name, address, ports) in controllers
        .map(|(name, address)| (name, address, 1))
        .chain(hosts.map(|(name, it)| (name, it, shards)))
    {
        let parsed: SocketAddr =
            address.parse().with_context(|| format!("the address {address:?} of {name}"))?;
        check_ports(name, parsed, ports)?;
    }
    Ok(())
}

/// Refuses to start where one of the ports of a process is taken, from its address on.
fn check_ports(name: &str, first: SocketAddr, ports: u16) -> anyhow::Result<()> {
    for port in 0..ports {
        let mut parsed = first;
        // Port 0 is any.
        if first.port() != 0 {
            parsed.set_port(first.port().checked_add(port).context("ports end at 65535")?);
        }
        TcpListener::bind(parsed).with_context(|| {
            format!(
                "{name} cannot listen at {parsed}: `ss -ltnp 'sport = :{}'` shows who does, end that process; or \
                 delete the region with `nova dev down --wipe`, and the next one gets other ports",
                parsed.port()
            )
        })?;
    }
    Ok(())
}

/// Makes a new region in an empty folder.
fn lay_out(folder: &Path, up: &Up) -> anyhow::Result<Region> {
    let plan = Plan {
        folder: folder.to_owned(),
        controllers: up.controllers.unwrap_or(CONTROLLERS_DEFAULT),
        storage: up.storage.unwrap_or(STORAGE_DEFAULT),
        compute: up.compute.unwrap_or(COMPUTE_DEFAULT),
        devices: up.devices.unwrap_or(DEVICES_DEFAULT),
        device_mib: up.device_mib.unwrap_or(DEVICE_MIB_DEFAULT),
        scrub_mib: up.scrub_mib,
        profile: profile_text(up.profile.as_deref().unwrap_or(PROFILE_DEFAULT), up.shards)?,
        bins: match &up.bins {
            Some(bins) => std::path::absolute(bins)?,
            None => own_folder()?,
        },
    };
    if plan.controllers.is_multiple_of(2) {
        return Err(Stop::usage(format!(
            "{} controllers tolerate no more losses than {}: ask for an odd number",
            plan.controllers,
            plan.controllers - 1
        )));
    }
    check_bins(&plan.bins)?;
    check_space(
        folder,
        u64::from(plan.storage) * u64::from(plan.devices) * (plan.device_mib << 20) + SPARE_BYTES,
    )?;
    config::lay_out(&plan).inspect_err(|_| {
        // The folder was empty: half a region in it would only be in the way of the next attempt.
        if let Err(error) = down::clear_folder(folder, &folder.join(LOCK)) {
            output::say(format_args!("nova: {error:#}"));
        }
    })
}

/// The profile, with as many shards as were asked for.
fn profile_text(name: &str, shards: Option<u16>) -> anyhow::Result<String> {
    let text = match Profile::built_in_text(name) {
        Some(text) => text.to_owned(),
        None if Path::new(name).exists() => {
            fs::read_to_string(name).with_context(|| format!("read {name}"))?
        }
        None => {
            return Err(Stop::usage(format!(
                "{name:?} is neither a built-in profile (laptop, ci) nor a file"
            )));
        }
    };
    let mut profile = Profile::parse(&text, name).with_context(|| format!("profile {name}"))?;
    let Some(count) = shards.filter(|count| *count != profile.shards.count) else { return Ok(text) };
    profile.shards = nova_profile::Shards { count, cores: Vec::new() };
    Ok(format!(
        "# The profile {name:?} with `--shards {count}`.\n{}",
        toml::to_string(&profile).context("write the profile")?
    ))
}

fn own_folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find where this program is; name the folder with --bins")?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
}

fn check_bins(bins: &Path) -> anyhow::Result<()> {
    for program in [Program::Control, Program::Agent, Program::Novad] {
        let path = bins.join(program.word());
        if !path.is_file() {
            return Err(Stop::usage(format!(
                "there is no {}: build all programs into one folder, or name it with --bins DIR",
                path.display()
            )));
        }
    }
    Ok(())
}

fn check_space(folder: &Path, wanted: u64) -> anyhow::Result<()> {
    let found =
        rustix::fs::statvfs(folder).with_context(|| format!("look at the disk of {}", folder.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < wanted {
        bail!(
            "the region takes up to {} and the disk of {} has {} free: make room, ask for smaller devices with \
             --device-mib, or name a folder on another disk",
            output::bytes(wanted),
            folder.display(),
            output::bytes(free)
        );
    }
    Ok(())
}

/// Starts one process and records it.
pub(super) fn start_one(region: &mut Region, name: &str, program: Program) -> anyhow::Result<Started> {
    let place = Place { name, program };
    let (process, child) =
        process::start(&region.bins.join(program.word()), &region.config(place), &region.log(place))
            .with_context(|| format!("start {} of {name}", program.word()))?;
    region.set_process(name, program, process);
    // Recorded one by one: whatever happens next, `nova dev down` knows what to end.
    region.save()?;
    Ok(Started { name: name.to_owned(), program, process, child })
}

fn start_all(region: &mut Region, meter: &mut Meter, interrupt: &Interrupt) -> anyhow::Result<Vec<Started>> {
    let places: Vec<_> = region.places().iter().map(|place| (place.name.to_owned(), place.program)).collect();
    let mut started = Vec::with_capacity(places.len());
    for (name, program) in places {
        interrupt.check()?;
        meter.say(format!("starting {} of {name}", program.word()));
        started.push(start_one(region, &name, program)?);
    }
    Ok(started)
}

/// Waits until the controllers say that every host is ready and every group whole.
fn wait_ready(
    region: &Region,
    started: &mut [Started],
    meter: &mut Meter,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut watch = cluster::Watch::new(region)?;
    loop {
        interrupt.check()?;
        for process in &mut *started {
            process.check(region)?;
        }
        let missing = match watch.readiness() {
            Readiness::Ready => return Ok(()),
            Readiness::Waiting(missing) => missing,
        };
        if begun.elapsed() >= READY_WITHIN {
            return Err(Stop::unavailable(format!(
                "not ready within {} s: {missing}",
                READY_WITHIN.as_secs()
            )));
        }
        meter.say(missing);
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_things_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        check_empty(&folder.path().join("new")).unwrap();
        check_empty(folder.path()).unwrap();
        fs::write(folder.path().join("thesis.tex"), "").unwrap();
        let error = check_empty(folder.path()).unwrap_err();
        assert_eq!(kind_of(&error), Kind::Usage);
        assert!(error.to_string().contains("thesis.tex"));
    }

    #[test]
    fn a_disk_without_room_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        check_space(folder.path(), 1).unwrap();
        let error = check_space(folder.path(), u64::MAX).unwrap_err();
        assert!(error.to_string().contains("--device-mib"), "{error}");
    }

    #[test]
    fn missing_programs_and_unknown_profiles_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_bins(folder.path()).unwrap_err().to_string().contains("nova-control"));
        assert!(profile_text("ci", None).unwrap().contains("arena_mib = 64"));
        assert_eq!(kind_of(&profile_text("mainframe", None).unwrap_err()), Kind::Usage);
    }

    #[test]
    fn a_profile_with_other_shards_keeps_everything_else() {
        let read =
            |shards| Profile::parse(&profile_text("storage-nvme12-100g", shards).unwrap(), "it").unwrap();
        let (two, plain) = (read(Some(2)), read(None));
        assert_eq!(
            (two.shards.count, two.shards.cores.len()),
            (2, 0),
            "cores of twelve are not those of two"
        );
        assert_eq!((&two.memory, &two.device), (&plain.memory, &plain.device));
        assert_eq!(profile_text("ci", Some(1)).unwrap(), profile_text("ci", None).unwrap());
    }

    #[test]
    fn a_region_is_not_started_again_as_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let region = crate::dev::region::tests::region_in(folder.path());
        region.save().unwrap();
        let found = reopen(folder.path(), &Up { storage: Some(1), ..Up::default() }).unwrap();
        assert_eq!(found.hosts.len(), 2);
        let error = reopen(folder.path(), &Up { storage: Some(5), ..Up::default() }).unwrap_err();
        assert!(error.to_string().contains("--wipe"));
    }

    #[test]
    fn an_address_that_is_taken_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut region = crate::dev::region::tests::region_in(folder.path());
        for host in &mut region.hosts {
            host.data_address = "127.0.0.1:0".into();
        }
        region.controllers[0].address = "127.0.0.1:0".into();
        check_addresses(&region).unwrap();
        region.hosts[1].data_address = taken.local_addr().unwrap().to_string();
        let error = check_addresses(&region).unwrap_err().to_string();
        for said in [&*region.hosts[1].data_address, "compute-1", "ss -ltnp", "--wipe"] {
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_process_that_ends_early_shows_the_end_of_its_log() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut region = crate::dev::region::tests::region_in(folder.path());
        region.bins = folder.path().to_owned();
        fs::create_dir(folder.path().join("storage-1")).unwrap();
        let novad = folder.path().join("novad");
        fs::write(&novad, "#!/bin/sh\necho \"no device in $2\" >&2\nexit 3\n").unwrap();
        fs::set_permissions(&novad, fs::Permissions::from_mode(0o700)).unwrap();
        let mut started = start_one(&mut region, "storage-1", Program::Novad).unwrap();
        assert_eq!(Region::load(folder.path()).unwrap().hosts[0].novad, Some(started.process));
        started.child.wait().unwrap();
        let error = started.check(&region).unwrap_err().to_string();
        assert!(error.contains("no device in") && error.contains("storage-1/novad.toml"), "{error}");
    }
}
