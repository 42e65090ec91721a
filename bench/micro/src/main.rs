//! Benchmarks of single hot paths, a JSON line each: frame, CRC, seal, open, records of TLS, log append, ring round trip.
//!
//! Figures of a shared machine compare within one run only: each line names what it is to be held against, and the
//! rounds of all benches alternate.
#![forbid(unsafe_code)]

mod append;
mod cipher;
mod frame;
mod record;
mod report;
mod ring;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

use crate::report::Report;

/// Times the hot paths of the data plane; prints a JSON line for each.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  micro --folder /var/tmp --seconds 2")]
struct Arguments {
    /// A folder on the disk to be measured; a device file of 256 MiB is made there and removed.
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// How long each bench runs, over all rounds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds; the benches alternate, so that a change of the machine's speed meets all of them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Size of the log's ring on that device, in MiB: 16 is what a device of 1 GiB has.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=64))]
    log_mib: u64,
    /// Only the rows of appends.
    #[arg(long)]
    appends: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!((0.1..=600.0).contains(&arguments.seconds), "--seconds is 0.1 to 600");
    let slice = Duration::from_secs_f64(arguments.seconds / f64::from(arguments.rounds));
    let mut report = Report::default();
    for _ in 0..arguments.rounds {
        if !arguments.appends {
            frame::run(&mut report, slice);
            cipher::run(&mut report, slice);
            record::run(&mut report, slice).context("records of TLS")?;
            ring::run(&mut report, slice).context("ring round trip")?;
        }
        let log_bytes = arguments.log_mib * nova_units::MIB;
        append::run(&mut report, slice, &arguments.folder, log_bytes).context("log append")?;
    }
    report.print();
    Ok(())
}
