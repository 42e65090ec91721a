//! NovaFS as programs use it, on a region of this machine, beside the raw device in the same run: three replicas,
//! checksums, SHA-256, sealing, everything on. A JSON line for each row.
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

use anyhow::{Context as _, Result};
use clap::Parser;
use nova_path::interrupt::Interrupt;
use nova_path::nova::Nova;
use nova_path::raw;
use nova_path::region::{Region, Size};
use novafs_client::Client;

use crate::figure::Table;
use crate::peer::Peer;
use crate::rows::{ROWS, Stage};

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
    after_help = "Example:\n  storage --folder /var/tmp --mib 512 --rounds 3"
)]
struct Arguments {
    /// A folder on the disk to be measured; the region goes there, and goes away.
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// MiB that the sequential rows move in each round.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    mib: u64,
    /// Files that the row of creates makes in each round.
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    files: u64,
    /// Seconds of the rows that have no end of their own, in each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
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
    /// Another file system that does the same rows in the same rounds; scripts/bench-peers installs it. As root.
    #[arg(long, value_enum)]
    peer: Option<peer::Kind>,
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
    let written_mib = arguments.mib * 2 + arguments.files * 4096 * 2 / (1 << 20);
    let device_mib = written_mib * u64::from(arguments.rounds) + DEVICE_SPARE_MIB;
    let nova = Nova::new(bins, &folder.join("region"), interrupt.clone())?;
    let size = Size {
        profile: Some(arguments.profile.clone()),
        devices: arguments.devices,
        shards: arguments.shards,
        ..Size::standard(device_mib)
    };
    let region = Region::up(nova, bins, &size, &folder.with_extension("logs"))?;
    region.wait_in_sync(REPLICAS, FORM_TIMEOUT)?;
    let socket = region.processes().host("compute-1").and_then(|host| host.agent_socket.clone());
    let client =
        Client::connect(&socket.context("the region has no compute host")?).context("attach to the agent")?;
    client.mkdir("/hot/bench", 0o755, true)?;
    let peer = arguments.peer.map(|kind| Peer::up(kind, &folder.join("peer"))).transpose()?;
    let mut table = Table::default();
    let stage = Stage::prepare(folder, arguments.mib, arguments.files, arguments.seconds)?;
    for round in 0..arguments.rounds {
        let before = raw::measure(folder, arguments.mib << 20, interrupt)?;
        for row in ROWS {
            interrupt.check()?;
            let work = (row.run)(&stage, &client, &region, round)
                .with_context(|| format!("measure {}", row.name))?;
            eprintln!("round {}: {}: {work}", round + 1, row.name);
            table.note(row, work);
        }
        if let Some(peer) = &peer {
            for row in peer::ROWS {
                interrupt.check()?;
                peer.forget_cached()?;
                let work = peer.measure(row, &stage, round);
                let work = work.with_context(|| format!("measure {} of {}", row.beside, peer.name))?;
                eprintln!("round {}: {}: {}: {work}", round + 1, peer.name, row.beside);
                table.note_peer(peer.name, row.beside, work);
            }
        }
        table.note_raw(before.mean(raw::measure(folder, arguments.mib << 20, interrupt)?));
    }
    table.print();
    peer.map_or(Ok(()), Peer::down)?;
    drop(client);
    region.down()
}
