//! Explores the model of reconfiguration within bounds, and prints the shortest way to a violation if there is one.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use nova_model::{Bounds, Reconfiguration};
use stateright::{Checker, Model};

/// Tries every order of steps of a replica group that changes its members.
#[derive(Debug, Parser)]
#[command(
    name = "model",
    version,
    after_help = "Example:\n  model --writes 2 --crashes 2 --amnesias 1 --epochs 5"
)]
struct Arguments {
    /// Members of the group when it is whole.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=4))]
    members: u8,
    /// Entries that clients write.
    #[arg(long, default_value_t = 2)]
    writes: u8,
    /// Crashes.
    #[arg(long, default_value_t = 2)]
    crashes: u8,
    /// Of these, how many end in a start on an old image of the device.
    #[arg(long, default_value_t = 1)]
    amnesias: u8,
    /// Epochs of the group.
    #[arg(long, default_value_t = 4)]
    epochs: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Stop after this many states; 0 goes on to the end.
    #[arg(long, default_value_t = 0)]
    states: usize,
}

fn main() -> ExitCode {
    let Arguments { members, writes, crashes, amnesias, epochs, threads, states } = Arguments::parse();
    let bounds = Bounds { members, writes, crashes, amnesias, epochs };
    let model = Reconfiguration { bounds };
    let mut checker = model.checker().threads(threads.max(1));
    if states > 0 {
        checker = checker.target_state_count(states);
    }
    let checker = checker.spawn_bfs().join();
    let ended = if states == 0 { "all of them" } else { "as many as were asked for" };
    println!("{} different states within {bounds:?}, {ended}", checker.unique_state_count());
    let mut held = true;
    for property in model.properties() {
        let found = checker.discovery(property.name);
        let (good, what) = match (&property.expectation, &found) {
            (stateright::Expectation::Sometimes, Some(_)) => (true, "happens"),
            (stateright::Expectation::Sometimes, None) => (states > 0, "never happens"),
            (_, None) => (true, "holds"),
            (_, Some(_)) => (false, "FAILS"),
        };
        println!("{what}: {}", property.name);
        if !good && let Some(path) = found {
            println!("{}", path.last_state().violation().unwrap_or("no such state"));
            for (index, step) in path.into_actions().into_iter().enumerate() {
                println!("  {index:3} {step:?}");
            }
        }
        held &= good;
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
