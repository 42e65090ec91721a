//! Binary nova-control: one of a region's three controllers.
//!
//! It takes part in two Raft groups, the cluster (hosts, replica groups) and the files (names, block maps), and
//! serves both over gRPC with mutual TLS on one port. Writes and reads go to the leader of their group; the others
//! name it. What the leader observes but need not remember (heartbeats, silence, renewals) stays in memory.
#![forbid(unsafe_code)]

mod asks;
mod attendance;
mod check;
mod clock;
mod cluster_service;
mod collection;
mod config;
mod convert;
mod files_service;
mod health;
mod keys;
mod keys_service;
mod leader;
mod machine;
mod map;
mod reads;
mod refusal;
mod room;
mod server;
mod spread;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// A bad command line or configuration, as in sysexits.
const EXIT_CONFIG: u8 = 78;

/// A controller of a NovaClustr region.
#[derive(Debug, Parser)]
#[command(name = "nova-control", version)]
struct Arguments {
    /// Configuration, in TOML.
    #[arg(long, value_name = "FILE", required_unless_present = "explain_config")]
    config: Option<PathBuf>,
    /// Prints every key with its meaning and default, and ends.
    #[arg(long)]
    explain_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.explain_config {
        print!("{}", config::EXPLANATION);
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let path = arguments.config.expect("clap asks for it");
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("nova-control: {error:#}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nova-control: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(server::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nova-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}
