//! Binary novad: the data plane of a host. Wires NovaFS and NovaBulk onto a shard, and serves the host's agent and
//! its local programs over shared memory.
#![forbid(unsafe_code)]

mod attendance;
mod cipher;
mod collection;
mod config;
mod desk;
mod door;
mod doorbell;
mod host;
mod hosts;
mod map;
mod program;
mod signals;
mod storage;
mod tickets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use nova_buf::{HugePages, PoolOptions};
use nova_profile::Profile;
use nova_ring::Acceptor;
use nova_shard::ShardOptions;
use nova_units::BootId;
use novafs_edge::Keyring;
use novafs_format::seal::{CipherKind, DomainKey};

use crate::config::Config;
use crate::desk::Desk;
use crate::door::Door;

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

fn start(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    let profile = Profile::read(&config.profile).context("read the hw-profile")?;
    let cores = std::thread::available_parallelism().context("count the cores")?;
    profile
        .check_start(u16::try_from(cores.get()).unwrap_or(u16::MAX))
        .context("this hw-profile on this machine")?;
    let boot = boot_id()?;
    let cipher = (config.edge || config.region_key.is_some()).then(choose_cipher);
    let keys = match (&config.region_key, cipher) {
        (Some(path), Some(cipher)) => Some(Keyring::of(read_key(path)?.with_cipher(cipher))),
        (None, Some(_)) => Some(Keyring::empty()),
        _ => None,
    };
    let desk = match cipher.filter(|_| config.edge) {
        Some(cipher) => Some(Desk::open(boot, cipher).context("make this start's key pair")?),
        None => None,
    };
    if let Some(device) = &config.device {
        storage::create_missing(device)?;
    }
    let door = Door::new(boot.0).context("make the door's bell")?;
    signals::stop_on_signals(&door).context("take over SIGTERM and SIGINT")?;
    let options = shard_options(&config, &profile);
    let (name, socket) = (config.name.clone(), config.socket.clone());
    let has_device = config.device.is_some();
    let scrub = config.scrub.options();
    nova_shard::run(options, async move |shard| -> anyhow::Result<()> {
        tracing::info!(name, %boot, "novad starts");
        for line in shard.describe() {
            tracing::info!("{line}");
        }
        let opened = if has_device { Some(storage::open(&shard).await?) } else { None };
        let acceptor = Acceptor::listen(&socket, SOCKET_MODE, Arc::clone(&door) as Arc<_>)
            .with_context(|| format!("listen at {}", socket.display()))?;
        tracing::info!(socket = %socket.display(), "waiting for the agent");
        let ended =
            host::Host::new(shard, Arc::clone(&door), boot, host::Keys { ring: keys, desk }, opened, scrub)
                .run()
                .await;
        drop(acceptor);
        ended.context("close the device in order")?;
        tracing::info!("novad ends");
        Ok(())
    })
    .context("start the shard")?
}

fn shard_options(config: &Config, profile: &Profile) -> ShardOptions {
    ShardOptions {
        name: format!("{}/0", config.name),
        core: profile.shards.cores.first().map(|core| usize::from(*core)),
        spin: Duration::from_micros(u64::from(profile.poll.spin_us)),
        pool: PoolOptions {
            bytes: profile.arena_bytes(),
            huge: match profile.memory.huge_pages {
                nova_profile::HugePages::Try => HugePages::Try,
                nova_profile::HugePages::Never => HugePages::Never,
            },
        },
        disks: config.device.iter().map(|device| device.path.clone()).collect(),
        listen: Some(config.data_listen),
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
