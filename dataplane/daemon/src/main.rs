//! Binary novad: the data plane of a host. Wires NovaFS and NovaBulk onto shards, and serves the host's agent and its local
//! programs over shared memory.
#![forbid(unsafe_code)]

mod attendance;
mod certificates;
mod cipher;
mod collection;
mod config;
mod desk;
mod devices;
mod door;
mod doorbell;
mod front;
mod host;
mod hosts;
mod map;
mod neighbours;
mod openings;
mod program;
mod report;
mod roster;
mod seats;
mod signals;
mod signposts;
mod storage;
mod switchboard;
mod tally;
mod tickets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use nova_buf::{HugePages, Pool, PoolOptions};
use nova_device::Shard as _;
use nova_device::uring::{DiskLimits, IoShares};
use nova_profile::Profile;
use nova_ring::Acceptor;
use nova_shard::{BrokenDisks, RealShard, ShardOptions};
use nova_units::BootId;
use novabulk_tls::{Tls, TlsConfig, TlsOptions};
use novafs_edge::Keyring;
use novafs_format::seal::{CipherKind, DomainKey};

use crate::config::{Config, ShardConfig};
use crate::desk::Desk;
use crate::door::Door;
use crate::roster::{Found, Roster};
use crate::switchboard::{FRONT, Switchboard};

/// Least memory of a shard for sealed bytes: 352 connections on which payload moves. What is not used is never touched.
const TLS_BYTES_MIN: u64 = 64 << 20;
/// Permission bits of the socket: the user that runs novad.
const SOCKET_MODE: u32 = 0o600;

/// The data plane of a host: stores blocks, seals and opens them, speaks NovaBulk to other hosts.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  novad --config /etc/nova/novad.toml")]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, required_unless_present_any = ["explain", "explain_profile"])]
    config: Option<PathBuf>,
    /// Print every key of the configuration with its meaning, then exit.
    #[arg(long)]
    explain: bool,
    /// Print every key of a hw-profile with its meaning and default, then exit.
    #[arg(long)]
    explain_profile: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.explain {
        print!("{}", config::EXPLAINED);
        return ExitCode::SUCCESS;
    }
    if arguments.explain_profile {
        print!("{}", nova_profile::explain());
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("NOVA_LOG").unwrap_or_else(|_| "info".into()),
        )
        .init();
    abort_on_panic();
    match start(&arguments.config.expect("clap asks for it")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("novad: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A panic on a shard ends the process at once: memory that the kernel still writes to must not be freed by an
/// unwinding stack, and recovery from the log is fast and tested.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// What the shards of a start have from the same place.
struct Start {
    config: Config,
    config_path: PathBuf,
    certificates: TlsConfig,
    boot: BootId,
    switchboard: Arc<Switchboard>,
    door: Arc<Door>,
    /// The region's key, where it comes from a file.
    region_key: Option<DomainKey>,
    desk: Option<Arc<Desk>>,
    is_edge: bool,
}

fn start(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    let profile = Profile::read(&config.profile).context("read the hw-profile")?;
    let cores = std::thread::available_parallelism().context("count the cores")?;
    profile
        .check_start(u16::try_from(cores.get()).unwrap_or(u16::MAX))
        .context("this hw-profile on this machine")?;
    let shards = config.deal(profile.shards.count).context("deal the devices to the shards")?;
    let boot = boot_id()?;
    let is_edge = config.edge || config.region_key.is_some();
    let cipher = is_edge.then(choose_cipher);
    let region_key = match (&config.region_key, cipher) {
        (Some(path), Some(cipher)) => Some(read_key(path)?.with_cipher(cipher)),
        _ => None,
    };
    let certificates = config.tls.read(&config.name).context("the section [tls] of the configuration")?;
    let desk = match cipher.filter(|_| config.edge) {
        Some(cipher) => Some(Arc::new(Desk::open(boot, cipher).context("make this start's key pair")?)),
        None => None,
    };
    for (place, device) in config.devices.iter().enumerate() {
        // Its shard finds it missing, and goes on with the others.
        if let Err(error) = storage::create_missing(device) {
            tracing::error!(place, "{error:#}");
        }
    }
    let switchboard = Switchboard::new(profile.shards.count).context("make the mailboxes of the shards")?;
    let door = Door::new(boot.0, Arc::clone(&switchboard));
    signals::stop_on_signals(&switchboard).context("take over SIGTERM and SIGINT")?;
    certificates::watch(config.tls.clone(), config.name.clone(), &switchboard)
        .context("make a thread that looks at the certificates")?;
    tracing::info!(name = config.name, %boot, shards = shards.len(), certificate = %certificates.name(), "novad starts");
    let config_path = path.to_owned();
    let start =
        Start { config, config_path, certificates, boot, switchboard, door, region_key, desk, is_edge };
    run_all(&start, &profile, &shards)?;
    tracing::info!("novad ends");
    Ok(())
}

/// Runs every shard on a thread of its own, the first one on this, until all have ended.
fn run_all(start: &Start, profile: &Profile, shards: &[ShardConfig]) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let begin = |(own, shard)| {
            let run = move || run_shard(start, profile, shard, own);
            let name = format!("{}/{own}", start.config.name);
            let begun = std::thread::Builder::new().name(name).spawn_scoped(scope, run);
            begun.with_context(|| {
                start.switchboard.muster(own, Found { failed: true, ..Found::default() });
                format!("make a thread for shard {own}")
            })
        };
        let others: Vec<_> = shards.iter().enumerate().skip(1).map(begin).collect();
        let front = run_shard(start, profile, &shards[FRONT], FRONT);
        // A panic of any of them ends the process.
        let end =
            |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("a panic ends the process");
        let ended: Vec<anyhow::Result<()>> = others.into_iter().map(|begun| end(begun?)).collect();
        front.and(ended.into_iter().collect())
    })
}

/// Runs one shard until novad ends.
fn run_shard(start: &Start, profile: &Profile, shard: &ShardConfig, own: usize) -> anyhow::Result<()> {
    let options = shard_options(&start.config, profile, shard, own);
    let places: Vec<u8> = shard.devices.iter().map(|(place, _)| *place).collect();
    let ended = nova_shard::run(options, async |shard| {
        for line in shard.describe() {
            tracing::info!("{line}");
        }
        tracing::info!("{}: devices at places {places:?} of the configuration", shard.name());
        serve(start, shard, own, &places).await
    });
    let ended = ended.unwrap_or_else(|error| {
        // The others wait for what it says of its devices, and end with it.
        start.switchboard.muster(own, Found { failed: true, ..Found::default() });
        Err(anyhow::Error::new(error).context(format!("start shard {own}")))
    });
    if ended.is_err() {
        // A host has all its shards or none.
        start.switchboard.ask_stop();
    }
    ended
}

async fn serve(start: &Start, shard: RealShard, own: usize, places: &[u8]) -> anyhow::Result<()> {
    let Start { config, certificates, boot, switchboard, door, region_key, desk, is_edge, .. } = start;
    let (devices, found) = storage::open_all(&shard, places).await;
    switchboard.muster(own, found);
    let roster = all_mustered(&shard, switchboard, own).await?;
    match &roster.refusal {
        // The shard that failed says why.
        _ if roster.failed => return Ok(()),
        Some(why) if own == FRONT => anyhow::bail!("{why}"),
        // The first shard says it.
        Some(_) => return Ok(()),
        None => {}
    }
    let ring = match region_key {
        Some(key) => Some(Keyring::of(key.clone())),
        None => is_edge.then(Keyring::empty),
    };
    let setup = host::Setup {
        own,
        switchboard: Arc::clone(switchboard),
        door: Arc::clone(door),
        boot: *boot,
        keys: host::Keys { ring, desk: desk.clone() },
        devices: storage::serving(devices, &roster),
        roster,
        scrub: config.scrub.options(),
        port_base: config.data_listen.port(),
        tls: tls(certificates.clone(), &shard)?,
        config_path: start.config_path.clone(),
        paths: config.devices.iter().map(|device| device.path.clone()).collect(),
        shard,
    };
    let host = host::Host::new(setup);
    let acceptor = match own {
        FRONT => Some(open_door(config, door)?),
        _ => None,
    };
    let ended = host.run().await;
    drop(acceptor);
    ended.context("close the device in order")
}

/// TLS of a shard. Sealed bytes lie in memory of their own, an eighth of the shard's arena.
fn tls(certificates: TlsConfig, shard: &RealShard) -> anyhow::Result<Tls> {
    let bytes = (shard.pool().bytes() / 8).max(TLS_BYTES_MIN);
    let memory = Pool::new(PoolOptions { bytes, huge: HugePages::Never }).context("take memory for TLS")?;
    Ok(Tls::new(certificates, TlsOptions::default(), memory))
}

/// Waits until every shard has looked at its devices.
async fn all_mustered(
    shard: &RealShard,
    switchboard: &Switchboard,
    own: usize,
) -> anyhow::Result<Arc<Roster>> {
    let mailbox = switchboard.mailbox(own);
    let bell = shard.watch(mailbox.bell().try_clone_to_owned().context("a descriptor for the bell")?);
    loop {
        if let Some(roster) = switchboard.roster() {
            return Ok(roster);
        }
        bell.readable().await.context("wait for the other shards")?;
        mailbox.silence();
    }
}

fn open_door(config: &Config, door: &Arc<Door>) -> anyhow::Result<Acceptor> {
    let socket = &config.socket;
    let acceptor = Acceptor::listen(socket, SOCKET_MODE, Arc::clone(door) as Arc<_>)
        .with_context(|| format!("listen at {}", socket.display()))?;
    tracing::info!(socket = %socket.display(), "waiting for the agent");
    Ok(acceptor)
}

fn shard_options(config: &Config, profile: &Profile, shard: &ShardConfig, own: usize) -> ShardOptions {
    ShardOptions {
        name: format!("{}/{own}", config.name),
        core: profile.shards.cores.get(own).map(|core| usize::from(*core)),
        spin: Duration::from_micros(u64::from(profile.poll.spin_us)),
        pool: PoolOptions {
            bytes: profile.arena_bytes(),
            huge: match profile.memory.huge_pages {
                nova_profile::HugePages::Try => HugePages::Try,
                nova_profile::HugePages::Never => HugePages::Never,
            },
        },
        disks: shard.devices.iter().map(|(_, path)| path.clone()).collect(),
        broken_disks: BrokenDisks::Leave,
        disk_limits: disk_limits(&profile.device),
        listen: Some(shard.listen),
    }
}

fn disk_limits(device: &nova_profile::Device) -> DiskLimits {
    DiskLimits {
        requests_max: usize::from(device.requests_max),
        bytes_max: usize::from(device.in_flight_mib_max) << 20,
        shares: IoShares {
            client: device.client_share,
            repair: device.repair_share,
            background: device.background_share,
            scrub: device.scrub_share,
        },
    }
}

/// Reads the region's key. Whoever else could read the file could open every block, so that is an error.
fn read_key(path: &Path) -> anyhow::Result<DomainKey> {
    use std::os::unix::fs::MetadataExt;
    let mode =
        std::fs::metadata(path).with_context(|| format!("find the key file {}", path.display()))?.mode();
    anyhow::ensure!(
        mode.trailing_zeros() >= 6,
        "{} can be read by others (mode {:03o}): run `chmod 600 {}`",
        path.display(),
        mode & 0o777,
        path.display()
    );
    let text = zeroize::Zeroizing::new(
        std::fs::read_to_string(path).with_context(|| format!("read the key file {}", path.display()))?,
    );
    DomainKey::parse(&text).with_context(|| format!("the key file {}", path.display()))
}

/// Which cipher seals here.
fn choose_cipher() -> CipherKind {
    let measured = cipher::measure();
    let rates: Vec<_> = measured
        .iter()
        .map(|one| format!("{} {:.2} GB/s", one.cipher.name(), one.bytes_per_s / 1e9))
        .collect();
    let chosen = measured[0].cipher;
    tracing::info!(cipher = chosen.name(), "AES-256-GCM, opening 64 KiB units: {}", rates.join(", "));
    chosen
}

/// A random name of this start; 0 means none.
fn boot_id() -> anyhow::Result<BootId> {
    let mut boot = [0; 8];
    getrandom::fill(&mut boot).map_err(|error| anyhow::anyhow!("draw a boot id: {error}"))?;
    Ok(BootId(u64::from_le_bytes(boot) | 1))
}
