//! Starts a region on this machine and puts it through its main job. `scripts/demo` builds and runs this.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nova_path::demo::{self, Options};

/// Puts a tree of real files through a region of NovaClustr on this machine: three replicas, a killed storage host,
/// damaged disks, a killed Raft leader. Every file is compared with its source.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// The folder to put; by default the first 1.5 GB or 20,000 files of /usr/share and /usr/lib.
    path: Option<PathBuf>,
    /// All of /usr/share and /usr/lib.
    #[arg(long, conflicts_with = "path")]
    all: bool,
    /// Leave the region up, and print how to use it.
    #[arg(long)]
    keep: bool,
    /// Put at most so many bytes.
    #[arg(long, value_name = "N")]
    bytes: Option<u64>,
    /// Where the region and the copy go while the demo runs: a folder on the disk to be measured.
    #[arg(long, value_name = "DIR", env = "NOVA_DEMO_FOLDER", default_value = "/var/tmp")]
    folder: PathBuf,
    /// Where nova, nova-control, nova-agent and novad are; by default beside this program.
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<bool> {
    let bins = match arguments.bins {
        Some(bins) => std::path::absolute(bins)?,
        None => std::env::current_exe()?.parent().context("find the folder of this program")?.to_owned(),
    };
    demo::run(&Options {
        path: arguments.path,
        all: arguments.all,
        keep: arguments.keep,
        bytes: arguments.bytes,
        folder: arguments.folder,
        bins,
    })
}
