//! NovaFS as programs use it, on a region of this machine, beside the raw device in the same run: three replicas,
//! checksums, SHA-256, sealing, everything on. With `--peer`, other file systems do the same in the same rounds.
//!
//! A figure of a shared machine means something only beside another one of the same minute: so every round measures the
//! raw device, then each row, and the lines carry medians of ratios, and bytes or operations per second of processor.
#![forbid(unsafe_code)]

mod figure;
mod peer;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nova_measure::recipe::Recipe;
use nova_measure::rounds::turns;
use nova_path::interrupt::Interrupt;
use nova_path::nova::Nova;
use nova_path::raw;
use nova_path::region::{Region, Size};
use novafs_client::Client;

use crate::figure::Table;
use crate::peer::Peer;
use crate::rows::{Amount, Place, ROWS, Stage};

/// Copies of everything.
const REPLICAS: usize = 3;
/// Groups are formed within this time after the start.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
/// Room on each device beside what the rows write: the log, metadata, and what is not collected yet.
const DEVICE_SPARE_MIB: u64 = 2048;

/// Measures NovaFS on a region of this machine beside the raw device.
#[derive(Debug, Parser)]
#[command(
    name = "storage",
    version,
    after_help = "Example:\n  storage --folder /var/tmp --mib 512 --rounds 3\n\
                  storage --mib 128 --files 500 --rounds 1 --peer moosefs,gluster,ceph,rados --json"
)]
struct Arguments {
    /// A folder on the disk to be measured; the region goes there, and goes away.
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    #[command(flatten)]
    amount: Amount,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Hardware profile of every host, as `nova dev up --profile` takes it.
    #[arg(long, default_value = "laptop")]
    profile: String,
    /// Devices of each storage host.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=24))]
    devices: u32,
    /// Shards of every host, in place of what the profile says.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=24))]
    shards: Option<u32>,
    /// Where nova, nova-control, nova-agent and novad are; by default beside this program.
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
    /// Other file systems that do the same rows in the same rounds; scripts/bench-peers installs them. As root.
    #[arg(long = "peer", value_name = "NAME,...", value_enum, value_delimiter = ',')]
    peers: Vec<peer::Kind>,
    /// A JSON line for each row and system, and for how each peer was set up, instead of tables.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storage: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::catch().context("catch signals")?;
    let bins = match &arguments.bins {
        Some(bins) => std::path::absolute(bins)?,
        None => std::env::current_exe()?.parent().context("find the folder of this program")?.to_owned(),
    };
    let folder = arguments.folder.join(format!("novaclustr-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let outcome = measure(arguments, &bins, &folder, &interrupt);
    // The region in it is down by now; what is left are inputs of ours.
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

fn measure(
    arguments: &Arguments,
    bins: &std::path::Path,
    folder: &std::path::Path,
    interrupt: &Interrupt,
) -> Result<()> {
    let written_mib = arguments.amount.mib * 2 + arguments.amount.files * 4096 * 2 / (1 << 20);
    let written_mib = written_mib * u64::from(arguments.rounds);
    let device_mib = written_mib + DEVICE_SPARE_MIB;
    check_room(arguments, folder, device_mib, written_mib)?;
    let nova = Nova::new(bins, &folder.join("region"), interrupt.clone())?;
    let size = Size {
        profile: Some(arguments.profile.clone()),
        devices: arguments.devices,
        shards: arguments.shards,
        ..Size::standard(device_mib)
    };
    let region = Region::up(nova, bins, &size, &folder.with_extension("logs"))?;
    region.wait_in_sync(REPLICAS, FORM_TIMEOUT)?;
    let clients = Clients { compute: attach(&region, "compute-1")?, storage: attach(&region, "storage-1")? };
    clients.compute.mkdir("/hot/bench", 0o755, true)?;
    let peers = arguments.peers.iter().map(|&kind| Peer::up(kind, folder, written_mib, interrupt));
    let mut peers = peers.collect::<Result<Vec<_>>>()?;
    let mut table = Table::default();
    let stage = Stage::prepare(folder, &arguments.amount)?;
    let systems = 1 + peers.len();
    for round in 0..arguments.rounds {
        let before = raw::measure(folder, arguments.amount.mib << 20, interrupt)?;
        for turn in turns(round, systems) {
            match turn {
                0 => measure_ours(&mut table, &stage, &clients, &region, round, interrupt)?,
                number => measure_peer(&mut table, &stage, &mut peers[number - 1], round, interrupt)?,
            }
        }
        table.note_raw(before.mean(raw::measure(folder, arguments.amount.mib << 20, interrupt)?));
    }
    let recipes: Vec<&Recipe> = peers.iter().map(Peer::recipe).collect();
    if arguments.json {
        let recipes = recipes.into_iter().map(Recipe::line);
        table.lines().into_iter().chain(recipes).for_each(|line| println!("{line}"));
    } else {
        print!("{table}");
        recipes.into_iter().for_each(|recipe| print!("\n{recipe}"));
    }
    peers.into_iter().try_for_each(Peer::down)?;
    drop(clients);
    region.down()
}

/// The program that asks, attached to a host of each kind.
struct Clients {
    compute: Client,
    storage: Client,
}

fn attach(region: &Region, host: &str) -> Result<Client> {
    let socket = region.processes().host(host).and_then(|it| it.agent_socket.clone());
    let socket = socket.with_context(|| format!("the region has no {host}"))?;
    Client::connect(&socket).with_context(|| format!("attach to the agent of {host}"))
}

/// Stops before anything is started when the disk is too small for the region, its peers and the inputs.
fn check_room(
    arguments: &Arguments,
    folder: &std::path::Path,
    device_mib: u64,
    written_mib: u64,
) -> Result<()> {
    let peers = u64::try_from(arguments.peers.len())? * peer::Kind::room_mib(written_mib);
    let needed = device_mib * u64::try_from(REPLICAS)? + peers + arguments.amount.mib * 2;
    let stat = rustix::fs::statvfs(folder).with_context(|| format!("look at {}", folder.display()))?;
    let free = (stat.f_bavail * stat.f_frsize) >> 20;
    ensure!(
        needed <= free,
        "{} has {free} MiB free and this needs {needed} MiB: take less with --mib, --rounds or fewer peers, or \
         another place with --folder",
        folder.display()
    );
    Ok(())
}

fn measure_ours(
    table: &mut Table,
    stage: &Stage,
    clients: &Clients,
    region: &Region,
    round: u32,
    interrupt: &Interrupt,
) -> Result<()> {
    for row in ROWS {
        interrupt.check()?;
        let client = match row.place {
            Place::Compute => &clients.compute,
            Place::Storage => &clients.storage,
        };
        let work =
            (row.run)(stage, client, region, round).with_context(|| format!("measure {}", row.name))?;
        eprintln!("round {}: {}: {work}", round + 1, row.name);
        table.note(row, work);
    }
    Ok(())
}

fn measure_peer(
    table: &mut Table,
    stage: &Stage,
    peer: &mut Peer,
    round: u32,
    interrupt: &Interrupt,
) -> Result<()> {
    for row in peer::ROWS {
        interrupt.check()?;
        peer.prepare(row, stage, round)
            .with_context(|| format!("prepare {} for {}", peer.name, row.beside))?;
        let work = peer.measure(row, stage, round);
        let work = work.with_context(|| format!("measure {} of {}", row.beside, peer.name))?;
        eprintln!("round {}: {}: {}: {work}", round + 1, peer.name, row.beside);
        table.note_peer(peer.name, row.beside, work);
    }
    Ok(())
}
