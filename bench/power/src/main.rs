//! Loss of power on a real block device: `power write` runs in a machine that is switched off, `power check` looks at
//! what the drive may hold then. `scripts/lab/power-cuts` puts them together.

#![forbid(unsafe_code)]

mod check;
mod history;
mod journal;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nova_shard::{RealShard, ShardOptions};

#[derive(Parser)]
#[command(
    name = "power",
    version,
    about = "A writer whose host loses power, and the check of what its drive held"
)]
struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Format a store and append to it; says `acknowledged N` as entries become durable
    Write {
        #[command(flatten)]
        place: Place,
        /// How many entries
        #[arg(long, default_value_t = 5000)]
        entries: u64,
    },
    /// Compare the store with what must be there, and go on writing
    Check {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
struct Place {
    /// Block device or preallocated file of the store; `write` overwrites it
    #[arg(long)]
    store: PathBuf,
    /// Block device or preallocated file that notes what was acknowledged; zeros before `write`
    #[arg(long)]
    journal: PathBuf,
    /// What is written follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Place {
    fn run<T>(self, work: impl AsyncFnOnce(RealShard) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let disks = vec![self.store, self.journal];
        nova_shard::run(ShardOptions { disks, ..ShardOptions::default() }, work).context("start a shard")?
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().act {
        Act::Write { place, entries } => {
            let seed = place.seed;
            place.run(async move |shard| write::run(shard, seed, entries).await)
        }
        Act::Check { place } => {
            let seed = place.seed;
            place.run(async move |shard| check::run(shard, seed).await).map(|found| match found {
                None => println!("nothing was acknowledged before the cut"),
                Some(found) => println!(
                    "right: acknowledged {}, found {}, committed {}, {} units byte for byte",
                    found.note.acknowledged, found.newest, found.note.committed, found.units
                ),
            })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("power: {error:#}");
            ExitCode::FAILURE
        }
    }
}
