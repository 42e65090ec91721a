//! Binary nova-bulk: copies files between hosts that need no region. `nova bulk` runs it.
//!
//! Results go to standard output, as text or (`--json`) as one JSON object; progress and messages go to standard error.
//! It is a binary of its own because it runs a shard, and `nova` belongs to the control plane, which has another runtime.
#![forbid(unsafe_code)]

mod copy;
mod doctor;
mod exit;
mod identity;
mod interrupt;
mod machine;
mod output;
mod place;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Copies files and folders between hosts, and says what keeps a copy from being faster.
#[derive(Debug, Parser)]
#[command(
    name = "nova bulk",
    bin_name = "nova bulk",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 unavailable (try again).\n\n\
                  Examples:\n  \
                  nova identity new                                         once, on each host\n  \
                  nova bulk serve --root /srv/data                          lend and take files here\n  \
                  nova bulk copy ~/photos 127.0.0.1:9470/                   make photos there\n  \
                  nova bulk copy 127.0.0.1:9470/photos ~/restored/          and get it back\n  \
                  nova bulk doctor                                          what to change on this machine"
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Args, Clone, Debug)]
struct Global {
    /// Print one JSON object on standard output instead of text; progress becomes JSON lines on standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Folder with the certificate that this end shows, its key, and whom it trusts, as `nova identity new` makes it.
    #[arg(long, global = true, value_name = "DIR", env = "NOVA_IDENTITY")]
    identity: Option<PathBuf>,
    /// Whether progress is shown on standard error.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Progress::Auto)]
    progress: Progress,
}

/// When progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Progress {
    /// When standard error is a terminal.
    Auto,
    /// Also when it is not.
    Always,
    /// Not at all.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lend and take the files of a folder, until Ctrl-C or SIGTERM.
    #[command(
        after_help = "Whoever has a certificate of a CA that this identity trusts may copy from and to the folder; \
                      connections are TLS 1.3, always.\n\n\
                      Examples:\n  \
                      nova bulk serve --root /srv/data\n  \
                      nova bulk serve --root /srv/data --read-only --listen 0.0.0.0:9470"
    )]
    Serve(serve::Serve),
    /// Copy files and folders; what is there already and the same stays, and what was begun goes on.
    #[command(
        after_help = "A side is a local path or HOST:PORT/path. A source goes into the target under its name; `dir/` means what \
                      is in it. A single file becomes the target, unless that is a folder or ends with a slash. With both sides \
                      remote, the source host drives the copy: serve it with --relay.\n\n\
                      Modes, times, symbolic and hard links, holes and attributes (user.*) are kept; owners are not.\n\n\
                      Examples:\n  \
                      nova bulk copy ~/photos 127.0.0.1:9470/backup/          makes backup/photos\n  \
                      nova bulk copy ~/photos/ 127.0.0.1:9470/backup          makes backup like photos\n  \
                      nova bulk copy --delete --exclude '*.tmp' 127.0.0.1:9470/backup/ ~/photos\n  \
                      nova bulk copy --limit 50M --streams 4 disk.img 127.0.0.1:9470/images/\n  \
                      nova bulk copy 127.0.0.1:9470/a 127.0.0.1:9471/         from one host to another"
    )]
    Copy(copy::Copy),
    /// Look at what of this machine keeps copies from being fast, and say what to change.
    #[command(after_help = "Changes nothing. Example:\n  nova bulk doctor")]
    Doctor,
}

fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    let done = match command {
        Command::Serve(serve) => serve::run(&global, serve),
        Command::Copy(copy) => copy::run(&global, copy),
        Command::Doctor => doctor::run(&global),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_shows_an_example() {
        let command = Arguments::command();
        command.clone().debug_assert();
        for below in std::iter::once(&command).chain(command.get_subcommands()) {
            let help = below.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", below.get_name());
        }
    }
}
