//! `nova dev`: a whole region as processes of this machine.

pub(crate) mod config;
mod down;
mod fault;
mod interrupt;
mod process;
pub(crate) mod region;
mod status;
mod up;

use clap::{Args, Subcommand};

use crate::arguments::Global;

pub(crate) use up::Up;

/// Commands over a region on this machine.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a region: controllers, storage hosts, compute hosts; or start one again that was taken down.
    #[command(
        after_help = "The folder is the one of --region unless --folder names another. A region that is down keeps \
                      its data and is started again by the same command. Ctrl-C or SIGTERM while it starts ends what \
                      was started; once it serves it runs on until `nova dev down`, unless --foreground.\n\n\
                      Examples:\n  \
                      nova dev up\n  \
                      nova dev up --folder /data/dev --device-mib 8192\n  \
                      nova dev up --foreground     until Ctrl-C\n  \
                      nova --json dev up --controllers 1 --profile laptop"
    )]
    Up(Up),
    /// Show the processes of the region and whether they run.
    #[command(after_help = "Examples:\n  nova dev status\n  nova --json dev status")]
    Status,
    /// End the region's processes. Its data stays, unless --wipe.
    #[command(
        after_help = "Examples:\n  nova dev down\n  nova dev down --wipe     deletes the region's folder too"
    )]
    Down(Down),
    /// Kill (SIGKILL) a host, a controller, or the controller that leads the file metadata.
    #[command(
        after_help = "Examples:\n  nova dev kill storage-2\n  nova dev kill controller-1\n  nova dev kill leader"
    )]
    Kill(Name),
    /// Start a host or controller again, with the configuration and data it had.
    #[command(
        after_help = "What still runs is asked to end first.\n\nExample:\n  nova dev restart storage-2"
    )]
    Restart(Name),
}

/// How to end a region.
#[derive(Args, Debug)]
pub(crate) struct Down {
    /// Delete the region's folder: data, keys, logs.
    #[arg(long)]
    wipe: bool,
}

/// Of whom a command is.
#[derive(Args, Debug)]
pub(crate) struct Name {
    /// Name of a host or controller, as `nova dev status` shows it.
    name: String,
}

/// Carries out a command.
pub(crate) fn run(global: &Global, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(up) => up::run(global, &up),
        Command::Status => status::run(global),
        Command::Down(down) => down::run(global, down.wipe),
        Command::Kill(name) => fault::kill(global, &name.name),
        Command::Restart(name) => fault::restart(global, &name.name),
    }
}
