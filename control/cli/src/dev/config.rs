//! Lays out the folder of a new region: keys, certificates, configurations, addresses.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nova_security::{Authority, Identity, Role, RootKey, Zone};
use serde::Serialize;

use crate::dev::region::{Controller, Host, HostRole, Place, Program, Region, boot};

/// Name of every development region.
const REGION: &str = "dev";
/// Stem of the operator's certificate in [`operator_folder`].
pub(crate) const OPERATOR: &str = "operator";
/// Stem of the certificate that a host's data plane shows to others.
const NOVAD: &str = "novad";
/// Who starts a region here wants to see space come back: blocks of removed files are collected after this, not after
/// the minute that is the default elsewhere.
const COLLECT_AFTER_SECONDS: u32 = 2;
/// Longest path of a Unix socket: `sun_path` of unix(7) has 108 bytes, the last of them 0.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Ports are looked for from here up to where the kernel takes those of outgoing connections, so that a host that
/// is started again finds its port free.
const PORT_FIRST: u16 = 20_000;
/// How many ports are tried before the kernel chooses one.
const PORT_ATTEMPTS_MAX: u32 = 256;

/// What a new region is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) folder: PathBuf,
    pub(crate) controllers: u16,
    pub(crate) storage: u16,
    pub(crate) compute: u16,
    /// Devices of each storage host.
    pub(crate) devices: u16,
    pub(crate) device_mib: u64,
    /// Scrub without end at this many MiB a second; `None`: novad's own pace.
    pub(crate) scrub_mib: Option<u64>,
    /// Text of the hardware profile of every host.
    pub(crate) profile: String,
    /// Where the programs are.
    pub(crate) bins: PathBuf,
}

/// Folder with the operator's certificate.
pub(crate) fn operator_folder(folder: &Path) -> PathBuf {
    folder.join(OPERATOR)
}

/// Makes everything that the processes of a region need. `folder` exists and holds no region.
pub(crate) fn lay_out(plan: &Plan) -> anyhow::Result<Region> {
    let region = describe(plan)?;
    let folder = &region.folder;
    let authority =
        Authority::create(&ca_folder(&region), &region.name).context("make the CA of the region")?;
    let issue = |home: &Path, stem: &str, zone, role, node: &str, names: &[&str]| {
        let identity = Identity::new(region.name.as_str(), zone, role, node)?;
        authority.issue(home, stem, &identity, names)
    };
    issue(&operator_folder(folder), OPERATOR, Zone::Management, Role::Operator, OPERATOR, &[])
        .context("issue the operator's certificate")?;
    RootKey::create(&root_key_path(&region)).context("make the root key of the region")?;
    write(&profile_path(&region), &plan.profile)?;
    let loopback = &["127.0.0.1", "localhost"];
    for controller in &region.controllers {
        let home = make_home(&region, &controller.name)?;
        issue(&home, "control", Zone::Management, Role::Controller, &controller.name, loopback)
            .with_context(|| format!("issue the certificate of {}", controller.name))?;
        write_config(&region, &controller.name, Program::Control, &control_config(&region, controller)?)?;
    }
    for host in &region.hosts {
        let home = make_home(&region, &host.name)?;
        issue(&home, "agent", zone_of(host.role), Role::Agent, &host.name, loopback)
            .with_context(|| format!("issue the certificate of {}", host.name))?;
        issue_to_novad(&authority, &region, host)?;
        write_config(&region, &host.name, Program::Novad, &novad_config(&region, host, plan.scrub_mib)?)?;
        write_config(&region, &host.name, Program::Agent, &agent_config(&region, host)?)?;
    }
    region.save()?;
    Ok(region)
}

fn ca_folder(region: &Region) -> PathBuf {
    region.folder.join("ca")
}

const fn zone_of(role: HostRole) -> Zone {
    match role {
        HostRole::Storage => Zone::Data,
        HostRole::Compute => Zone::Application,
    }
}

/// Issues the certificate that the data plane of `host` shows to others.
fn issue_to_novad(authority: &Authority, region: &Region, host: &Host) -> anyhow::Result<()> {
    let identity = Identity::new(region.name.as_str(), zone_of(host.role), Role::Daemon, host.name.as_str());
    identity
        .and_then(|identity| {
            authority.issue(&region.home(&host.name), NOVAD, &identity, &["127.0.0.1", "localhost"])
        })
        .with_context(|| format!("issue the certificate of novad on {}", host.name))?;
    Ok(())
}

/// The region as a plan wants it, with addresses that are free now. Makes the folder for its sockets.
fn describe(plan: &Plan) -> anyhow::Result<Region> {
    let folder = plan.folder.clone();
    let names = |word: &str, count: u16| (1..=count).map(|n| format!("{word}-{n}")).collect::<Vec<_>>();
    let host_names =
        |role: HostRole, count| names(role.word(), count).into_iter().map(move |name| (name, role));
    let hosts: Vec<_> = host_names(HostRole::Storage, plan.storage)
        .chain(host_names(HostRole::Compute, plan.compute))
        .collect();
    let sockets = socket_folder(&folder, hosts.iter().map(|(name, _)| name.as_str()))?;
    // Every shard of a host listens, from the host's address on.
    let shards = shards_of(&plan.profile)?;
    let runs = std::iter::repeat_n(1, usize::from(plan.controllers));
    let ports = free_ports(&runs.chain(hosts.iter().map(|_| shards)).collect::<Vec<_>>())?;
    let (controller_ports, host_ports) = ports.split_at(usize::from(plan.controllers));
    let controllers = names("controller", plan.controllers).into_iter().zip(1..).zip(controller_ports).map(
        |((name, id), port)| Controller { name, id, address: loopback(*port).to_string(), control: None },
    );
    let hosts = hosts.into_iter().zip(host_ports).map(|((name, role), port)| Host {
        role,
        data_address: loopback(*port).to_string(),
        devices: match role {
            HostRole::Storage => device_paths(&folder.join(&name), plan.devices),
            HostRole::Compute => Vec::new(),
        },
        agent_socket: socket(&sockets, &name, "agent"),
        novad_socket: socket(&sockets, &name, "novad"),
        novad: None,
        agent: None,
        name,
    });
    Ok(Region {
        name: REGION.into(),
        controllers: controllers.collect(),
        hosts: hosts.collect(),
        sockets,
        bins: plan.bins.clone(),
        device_mib: plan.device_mib,
        boot: boot()?,
        seconds: 0.0,
        folder,
    })
}

/// The files that play the devices of a host.
fn device_paths(home: &Path, count: u16) -> Vec<PathBuf> {
    let name =
        |place: u16| if place == 0 { "device.nova".to_owned() } else { format!("device-{place}.nova") };
    (0..count).map(|place| home.join(name(place))).collect()
}

fn profile_path(region: &Region) -> PathBuf {
    region.folder.join("profile.toml")
}

fn root_key_path(region: &Region) -> PathBuf {
    region.folder.join("root.key")
}

/// The key of a region that was laid out before there was a key service.
fn region_key_path(region: &Region) -> PathBuf {
    region.folder.join("region.key")
}

/// Gives a region that an earlier release laid out what it lacks. Whatever else stands in the configurations stays. Answers
/// whether it lacked something.
///
/// # Errors
/// When a file cannot be read or written. What was done is done; the next call goes on.
pub(crate) fn upgrade(region: &Region) -> anyhow::Result<bool> {
    Ok(upgrade_certificates(region)? | upgrade_keys(region)?)
}

/// From before NovaBulk had TLS: its hosts get certificates for it.
fn upgrade_certificates(region: &Region) -> anyhow::Result<bool> {
    let mut changed = false;
    // One that has no configuration is told so by its start.
    let laid_out = |host: &&Host| region.config(Place { name: &host.name, program: Program::Novad }).exists();
    for host in region.hosts.iter().filter(laid_out) {
        changed |= edit_config(region, &host.name, Program::Novad, |config| {
            if config.contains_key("tls") {
                return Ok(false);
            }
            let authority = Authority::open(&ca_folder(region)).context("open the CA of the region")?;
            issue_to_novad(&authority, region, host)?;
            let tls = toml::Table::try_from(Tls::of(&region.home(&host.name), NOVAD));
            config.insert("tls".into(), tls.context("write the section [tls]")?.into());
            Ok(true)
        })?;
    }
    Ok(changed)
}

/// From before there was a key service: its controllers get a root key and import the key that it has, and its hosts get
/// it from them.
fn upgrade_keys(region: &Region) -> anyhow::Result<bool> {
    let old = region_key_path(region);
    if !old.exists() {
        return Ok(false);
    }
    let root = root_key_path(region);
    if !root.exists() {
        RootKey::create(&root).context("make the root key of the region")?;
    }
    let mut changed = false;
    for controller in &region.controllers {
        changed |= edit_config(region, &controller.name, Program::Control, |config| {
            if config.contains_key("keys") {
                return Ok(false);
            }
            let keys = Keys { root: root.clone(), import: Some(old.clone()) };
            let keys = toml::Table::try_from(keys).context("write the section [keys]")?;
            config.insert("keys".into(), keys.into());
            Ok(true)
        })?;
    }
    for host in &region.hosts {
        changed |= edit_config(region, &host.name, Program::Novad, |config| {
            let had = config.remove("region_key").is_some();
            if had {
                config.insert("edge".into(), true.into());
            }
            Ok(had)
        })?;
    }
    Ok(changed)
}

/// Changes a configuration when `edit` says that it did.
fn edit_config(
    region: &Region,
    name: &str,
    program: Program,
    edit: impl FnOnce(&mut toml::Table) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let path = region.config(Place { name, program });
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut config: toml::Table = text.parse().with_context(|| format!("read {}", path.display()))?;
    if !edit(&mut config)? {
        return Ok(false);
    }
    write_config(region, name, program, &toml::to_string(&config).context("write a configuration")?)?;
    Ok(true)
}

fn make_home(region: &Region, name: &str) -> anyhow::Result<PathBuf> {
    let home = region.home(name);
    make_private(&home)?;
    Ok(home)
}

/// Makes a folder that only we can look into.
pub(crate) fn make_private(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make folder {}", folder.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn write_config(region: &Region, name: &str, program: Program, config: &str) -> anyhow::Result<()> {
    let text = format!(
        "# Made by `nova dev up`. `{} {}` prints every key with its meaning.\n{config}",
        program.word(),
        if program == Program::Novad { "--explain" } else { "--explain-config" },
    );
    write(&region.config(Place { name, program }), &text)
}

#[derive(Serialize)]
struct Keys {
    root: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<PathBuf>,
}

#[derive(Serialize)]
struct Tls {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    fn of(home: &Path, stem: &str) -> Self {
        Self {
            ca: home.join("ca.pem"),
            certificate: home.join(format!("{stem}.pem")),
            key: home.join(format!("{stem}.key")),
        }
    }
}

fn control_config(region: &Region, controller: &Controller) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Config<'a> {
        region: &'a str,
        id: u64,
        listen: &'a str,
        folder: PathBuf,
        collection: Collection,
        keys: Keys,
        tls: Tls,
        peers: Vec<Peer<'a>>,
    }
    #[derive(Serialize)]
    struct Collection {
        after_seconds: u32,
    }
    #[derive(Serialize)]
    struct Peer<'a> {
        id: u64,
        address: &'a str,
    }
    let home = region.home(&controller.name);
    let config = Config {
        region: &region.name,
        id: controller.id,
        listen: &controller.address,
        collection: Collection { after_seconds: COLLECT_AFTER_SECONDS },
        keys: Keys { root: root_key_path(region), import: None },
        tls: Tls::of(&home, "control"),
        peers: region.controllers.iter().map(|peer| Peer { id: peer.id, address: &peer.address }).collect(),
        folder: home.join("data"),
    };
    toml::to_string(&config).context("write the configuration of a controller")
}

fn agent_config(region: &Region, host: &Host) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Config<'a> {
        name: &'a str,
        roles: [&'a str; 1],
        data_addr: &'a str,
        novad_socket: &'a Path,
        socket: &'a Path,
        controllers: Vec<String>,
        tls: Tls,
    }
    let config = Config {
        name: &host.name,
        roles: [host.role.word()],
        data_addr: &host.data_address,
        novad_socket: &host.novad_socket,
        socket: &host.agent_socket,
        controllers: region.controller_addresses(),
        tls: Tls::of(&region.home(&host.name), "agent"),
    };
    toml::to_string(&config).context("write the configuration of an agent")
}

fn novad_config(region: &Region, host: &Host, scrub_mib: Option<u64>) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Config<'a> {
        name: &'a str,
        socket: &'a Path,
        data_listen: &'a str,
        profile: PathBuf,
        edge: bool,
        tls: Tls,
        #[serde(skip_serializing_if = "Option::is_none")]
        scrub: Option<Scrub>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        device: Vec<Device<'a>>,
    }
    #[derive(Serialize)]
    struct Scrub {
        idle_mib_a_second: u64,
        pass_every_seconds: u64,
    }
    #[derive(Serialize)]
    struct Device<'a> {
        path: &'a Path,
        create_mib: u64,
    }
    let config = Config {
        name: &host.name,
        socket: &host.novad_socket,
        data_listen: &host.data_address,
        profile: profile_path(region),
        edge: true,
        tls: Tls::of(&region.home(&host.name), NOVAD),
        device: host.devices.iter().map(|path| Device { path, create_mib: region.device_mib }).collect(),
        scrub: scrub_mib.map(|mib| Scrub { idle_mib_a_second: mib, pass_every_seconds: 1 }),
    };
    toml::to_string(&config).context("write the configuration of novad")
}

fn socket(folder: &Path, host: &str, program: &str) -> PathBuf {
    folder.join(host).join(format!("{program}.sock"))
}

/// Where the sockets go: the folder of the region, or a short one of our own when the paths would be too long.
fn socket_folder<'a>(folder: &Path, hosts: impl Iterator<Item = &'a str> + Clone) -> anyhow::Result<PathBuf> {
    let fits = |folder: &Path| {
        hosts.clone().all(|host| {
            socket(folder, host, "agent")
                .as_os_str()
                .len()
                .max(socket(folder, host, "novad").as_os_str().len())
                <= SOCKET_PATH_BYTES_MAX
        })
    };
    if fits(folder) {
        return Ok(folder.to_owned());
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).context("choose a name for the folder of the sockets")?;
    let short = PathBuf::from(format!("/tmp/nova-{}", crate::output::hex(&random)));
    if !fits(&short) {
        bail!("the names of the hosts are too long for sockets");
    }
    // Not recursive: a folder that someone else made in advance is an error.
    fs::DirBuilder::new().mode(0o700).create(&short).with_context(|| format!("make {}", short.display()))?;
    for host in hosts.clone() {
        make_private(&short.join(host))?;
    }
    Ok(short)
}

/// Makes the folders of the sockets again when they are not those of the hosts: what cleans /tmp takes them away.
pub(crate) fn make_socket_folders(region: &Region) -> anyhow::Result<()> {
    if region.sockets == region.folder {
        return Ok(());
    }
    make_private(&region.sockets)?;
    let found = fs::symlink_metadata(&region.sockets)
        .with_context(|| format!("look at {}", region.sockets.display()))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        bail!(
            "{} is to hold the sockets of the region and others can write to it: remove it",
            region.sockets.display()
        );
    }
    region.hosts.iter().try_for_each(|host| make_private(&region.sockets.join(&host.name)))
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// How many shards the hosts of a region have.
///
/// # Errors
/// When its profile cannot be read.
pub(crate) fn shards(region: &Region) -> anyhow::Result<u16> {
    let path = profile_path(region);
    // A region without one is not started: novad says what is missing.
    if !path.exists() {
        return Ok(1);
    }
    shards_of(&fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?)
}

fn shards_of(profile: &str) -> anyhow::Result<u16> {
    let profile = nova_profile::Profile::parse(profile, "profile.toml").context("the hw-profile")?;
    Ok(profile.shards.count)
}

/// The first of so many ports of loopback in a row that nobody listens at, for each of `runs`; all are different.
fn free_ports(runs: &[u16]) -> anyhow::Result<Vec<u16>> {
    // All are held until the last is found, so that none is found twice.
    let (mut held, mut firsts) = (Vec::new(), Vec::with_capacity(runs.len()));
    let last =
        outgoing_ports_first().filter(|first| *first > PORT_FIRST).map_or(PORT_FIRST, |first| first - 1);
    let mut attempts = 0;
    while let Some(count) = runs.get(firsts.len()) {
        let port = if attempts < PORT_ATTEMPTS_MAX { random_port(last)? } else { 0 };
        attempts += 1;
        match hold_ports(port, *count) {
            Ok((first, mut run)) => {
                firsts.push(first);
                held.append(&mut run);
            }
            Err(_) if attempts < 2 * PORT_ATTEMPTS_MAX => {}
            Err(error) => return Err(error).context("find a free port on loopback"),
        }
    }
    Ok(firsts)
}

/// Listens at `count` ports from `first` on, or from where the kernel says when that is 0.
fn hold_ports(first: u16, count: u16) -> std::io::Result<(u16, Vec<TcpListener>)> {
    let mut held = vec![TcpListener::bind(loopback(first))?];
    let first = held[0].local_addr()?.port();
    for further in 1..count {
        let port = first.checked_add(further).ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        held.push(TcpListener::bind(loopback(port))?);
    }
    Ok((first, held))
}

fn random_port(last: u16) -> anyhow::Result<u16> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).context("choose a port")?;
    let span = u32::from(last - PORT_FIRST) + 1;
    let offset = u16::try_from(u32::from_be_bytes(random) % span).expect("the span of ports fits");
    Ok(PORT_FIRST + offset)
}

/// The first port that the kernel gives to outgoing connections.
fn outgoing_ports_first() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn plan(folder: &Path) -> Plan {
        Plan {
            folder: folder.into(),
            controllers: 3,
            storage: 3,
            compute: 1,
            devices: 2,
            device_mib: 512,
            scrub_mib: None,
            profile: nova_profile::Profile::built_in_text("ci").unwrap().into(),
            bins: "/opt/nova".into(),
        }
    }

    fn table(region: &Region, name: &str, program: Program) -> toml::Table {
        fs::read_to_string(region.config(Place { name, program })).unwrap().parse().unwrap()
    }

    fn text<'a>(table: &'a toml::Table, key: &str) -> &'a str {
        table[key].as_str().unwrap()
    }

    #[test]
    fn every_process_finds_in_its_configuration_what_its_neighbours_were_told() {
        let folder = tempfile::tempdir().unwrap();
        let region = lay_out(&plan(folder.path())).unwrap();
        assert_eq!(Region::load(folder.path()).unwrap(), region);

        let control = table(&region, "controller-2", Program::Control);
        assert_eq!(control["id"].as_integer(), Some(2));
        let peers = control["peers"].as_array().unwrap();
        assert_eq!(peers[1]["address"].as_str(), Some(text(&control, "listen")));
        assert_eq!(control["collection"]["after_seconds"].as_integer(), Some(2));
        let addresses: Vec<_> = peers.iter().map(|peer| peer["address"].as_str().unwrap()).collect();

        let (novad, agent) =
            (table(&region, "storage-3", Program::Novad), table(&region, "storage-3", Program::Agent));
        assert_eq!(text(&novad, "socket"), text(&agent, "novad_socket"));
        assert_eq!(text(&novad, "data_listen"), text(&agent, "data_addr"));
        let devices = novad["device"].as_array().unwrap();
        let paths: Vec<_> = devices.iter().map(|it| Path::new(it["path"].as_str().unwrap())).collect();
        assert_eq!(paths, region.hosts[2].devices);
        assert!(paths[1].ends_with("storage-3/device-1.nova"));
        assert_eq!(devices[1]["create_mib"].as_integer(), Some(512));
        assert_eq!(agent["roles"].as_array().unwrap()[0].as_str(), Some("storage"));
        let told: Vec<_> = agent["controllers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|address| address.as_str().unwrap())
            .collect();
        assert_eq!(told, addresses);

        let edge = table(&region, "compute-1", Program::Novad);
        assert!(!edge.contains_key("device") && edge["edge"].as_bool() == Some(true));
        nova_profile::Profile::read(Path::new(text(&edge, "profile"))).unwrap();
        let keys = control["keys"].as_table().unwrap();
        assert_eq!(RootKey::open(Path::new(text(keys, "root"))).unwrap().current_version(), 1);
        assert!(!keys.contains_key("import"));
    }

    #[test]
    fn certificates_name_their_process_and_keys_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let region = lay_out(&plan(folder.path())).unwrap();
        for (home, stem, role, node) in [
            (region.home("controller-1"), "control", Role::Controller, "controller-1"),
            (region.home("storage-2"), "agent", Role::Agent, "storage-2"),
            (region.home("storage-2"), NOVAD, Role::Daemon, "storage-2"),
            (region.home("compute-1"), NOVAD, Role::Daemon, "compute-1"),
            (operator_folder(&region.folder), OPERATOR, Role::Operator, OPERATOR),
        ] {
            let credentials = nova_security::Credentials::load(&home, stem).unwrap();
            assert_eq!((credentials.identity().role(), credentials.identity().node()), (role, node));
            assert_eq!(credentials.identity().region(), region.name);
        }
        for file in ["ca/ca.key", "root.key", "region.toml", "storage-1/agent.key", "storage-1/novad.key"] {
            let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }
    }

    #[test]
    fn a_region_of_an_earlier_release_is_given_a_root_key_and_keeps_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let region = lay_out(&plan(folder.path())).unwrap();
        assert!(!upgrade(&region).unwrap(), "a new one needs nothing");
        // As the release before laid it out.
        fs::remove_file(root_key_path(&region)).unwrap();
        let old = region_key_path(&region);
        nova_security::RegionKey::create(&old, 1, 1).unwrap();
        for controller in &region.controllers {
            edit_config(&region, &controller.name, Program::Control, |config| {
                config.insert("groups_wanted".into(), 7.into());
                Ok(config.remove("keys").is_some())
            })
            .unwrap();
        }
        for host in &region.hosts {
            edit_config(&region, &host.name, Program::Novad, |config| {
                config.insert("region_key".into(), old.to_str().unwrap().into());
                Ok(config.remove("edge").is_some() | config.remove("tls").is_some())
            })
            .unwrap();
        }
        assert!(upgrade(&region).unwrap());
        let control = table(&region, "controller-3", Program::Control);
        let keys = control["keys"].as_table().unwrap();
        assert_eq!(text(keys, "import"), old.to_str().unwrap());
        assert_eq!(RootKey::open(Path::new(text(keys, "root"))).unwrap().current_version(), 1);
        assert_eq!(control["groups_wanted"].as_integer(), Some(7), "what a person wrote stays");
        for name in ["storage-1", "compute-1"] {
            let novad = table(&region, name, Program::Novad);
            assert!(!novad.contains_key("region_key") && novad["edge"].as_bool() == Some(true), "{name}");
            assert!(text(novad["tls"].as_table().unwrap(), "key").ends_with("novad.key"), "{name}");
        }
        assert!(!upgrade(&region).unwrap(), "once");
    }

    #[test]
    fn ports_are_free_and_all_different() {
        let ports = free_ports(&[1; 32]).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 32);
        assert!(ports.iter().all(|port| *port >= PORT_FIRST));
    }

    #[test]
    fn every_shard_of_a_host_has_a_port_behind_the_one_before() {
        let runs = [1, 3, 3, 2];
        let firsts = free_ports(&runs).unwrap();
        let all = firsts.iter().zip(runs).flat_map(|(first, count)| *first..first + count);
        assert_eq!(all.collect::<BTreeSet<_>>().len(), 9);
        let folder = tempfile::tempdir().unwrap();
        let profile = "name = 'x'\n[shards]\ncount = 2".to_owned();
        let region = lay_out(&Plan { profile, ..plan(folder.path()) }).unwrap();
        assert_eq!(shards(&region).unwrap(), 2);
    }

    #[test]
    fn sockets_of_a_deep_folder_go_to_a_short_private_one() {
        let deep = PathBuf::from(format!("/{}", "d".repeat(SOCKET_PATH_BYTES_MAX)));
        let short = socket_folder(&deep, ["storage-1"].into_iter()).unwrap();
        assert_eq!(fs::metadata(&short).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(socket(&short, "storage-1", "novad").as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        fs::remove_dir_all(&short).unwrap();
        let region = Region {
            sockets: short.clone(),
            ..crate::dev::region::tests::region_in(Path::new("/somewhere/else"))
        };
        make_socket_folders(&region).unwrap();
        assert!(short.join("storage-1").is_dir() && short.join("compute-1").is_dir());
        fs::set_permissions(&short, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(make_socket_folders(&region).unwrap_err().to_string().contains("remove it"));
        fs::remove_dir_all(&short).unwrap();
        let near = Path::new("/run/nova");
        assert_eq!(socket_folder(near, ["storage-1"].into_iter()).unwrap(), near);
    }
}
