//! `sim run` tries many seeds; `sim replay` shows one again, with what happened.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use nova_sim::Outcome;

/// The seeded simulator of storage.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs seeds one after another, on every core.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 400)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Threads; 0 takes every core.
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// Prints a line for each seed.
        #[arg(long)]
        verbose: bool,
    },
    /// Runs one seed and prints what happened.
    Replay {
        /// The seed.
        #[arg(long)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Task::Run { seeds, seed, threads, verbose } => run_many(seed, seeds, threads, verbose),
        Task::Replay { seed } => replay(seed),
    }
}

fn run_many(first: u64, seeds: u64, threads: usize, verbose: bool) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores } else { threads };
    let started = Instant::now();
    let report = nova_sim::run_many(first, seeds, threads, |ended| match ended {
        Ok(outcome) if verbose => {
            let Outcome { seed, fingerprint, took, counts, .. } = outcome;
            println!("seed {seed} {fingerprint:016x} {took:?} {counts:?}");
        }
        Ok(_) => {}
        Err(trouble) => println!("{trouble}"),
    });
    println!(
        "{} of {seeds} seeds passed in {:.1?}: {:?}",
        seeds - report.troubles.len() as u64,
        started.elapsed(),
        report.counts
    );
    if report.troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64) -> ExitCode {
    match nova_sim::run(seed, true) {
        Ok(outcome) => {
            for event in &outcome.events {
                println!("{event}");
            }
            println!("seed {seed} passes: {:016x} {:?}", outcome.fingerprint, outcome.counts);
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            for event in &trouble.events {
                println!("{event}");
            }
            println!("{trouble}");
            ExitCode::FAILURE
        }
    }
}
