//! Explores the model of reconfiguration within bounds, and prints the shortest way to a violation if there is one.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use nova_model::{Bounds, Progress, Rare, Reconfiguration, Reductions};

/// Tries every order of steps of a replica group that changes its members.
#[derive(Debug, Parser)]
#[command(
    name = "model",
    version,
    after_help = "Examples:\n  model --writes 2 --crashes 2 --amnesias 1 --epochs 5\n  model --members 2 --crashes 3 --epochs 6"
)]
struct Arguments {
    /// Members of the group when it is whole.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=4))]
    members: u8,
    /// Entries that clients write.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=4))]
    writes: u8,
    /// Crashes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=8))]
    crashes: u8,
    /// Of these, how many end in a start on an old image of the device.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=8))]
    amnesias: u8,
    /// Epochs of the group.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=14))]
    epochs: u8,
    /// Stop after this many states; 0 goes on to the end.
    #[arg(long, default_value_t = 0)]
    states: usize,
    /// Take no step at once that could wait.
    #[arg(long)]
    nothing_at_once: bool,
    /// Tell apart what cannot matter any more.
    #[arg(long)]
    forget_nothing: bool,
    /// Tell apart what differs in the names of hosts only, and let the lowest be the next primary.
    #[arg(long)]
    by_name: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { members, writes, crashes, amnesias, epochs, states, .. } = arguments;
    let bounds = Bounds { members, writes, crashes, amnesias, epochs };
    let reductions = Reductions {
        at_once: !arguments.nothing_at_once,
        forget: !arguments.forget_nothing,
        alike: !arguments.by_name,
    };
    let model = Reconfiguration::new(bounds, reductions, None);
    let worlds_max = if states == 0 { usize::MAX } else { states };
    let found = model.explore(worlds_max, |progress| eprintln!("{}", line(progress)));
    println!("{}", line(found.progress));
    let ended = if found.ended { "all of them" } else { "not all of them" };
    println!("{} different states within {bounds:?}, {ended}", found.progress.worlds);
    let mut good = true;
    for (rare, what, can) in [
        (Rare::WrittenLater, "a write is acknowledged after a change of members", true),
        (Rare::Admitted, "a joiner is admitted", true),
        (Rare::BroughtBack, "members are brought back for a lost survivor", true),
        (Rare::ColdStart, "all start again after all were down", crashes > 1),
        (Rare::NewLife, "an old image is noticed", amnesias > 0),
    ] {
        if can {
            let met = found.met.contains(&rare);
            println!("{}: {what}", if met { "happens" } else { "never happens" });
            // A check that never meets what it is about proves nothing.
            good &= met || !found.ended;
        }
    }
    let Some((violation, way)) = found.violation else {
        println!("holds: nothing acknowledged is lost or missed");
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    println!("FAILS: {violation}");
    for (index, step) in way.into_iter().enumerate() {
        println!("  {index:3} {step:?}");
    }
    ExitCode::FAILURE
}

fn line(progress: Progress) -> String {
    let Progress { worlds, waiting, steps, depth, elapsed } = progress;
    let seconds = elapsed.as_secs_f64();
    let rate = worlds as f64 / seconds.max(0.001);
    format!(
        "{seconds:7.0} s: {worlds} states, {waiting} waiting, {steps} steps, depth {depth}, {rate:.0} states/s"
    )
}
