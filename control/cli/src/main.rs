//! Binary nova: everything a person types; also starts a region on one machine.
#![forbid(unsafe_code)]

use clap::{CommandFactory as _, Parser, Subcommand};

/// Starts regions of NovaClustr, moves files in and out of them, and shows how they are.
#[derive(Debug, Parser)]
#[command(name = "nova", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the completion script of a shell.
    #[command(
        after_help = "Example:\n  nova completions bash > ~/.local/share/bash-completion/completions/nova"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() {
    match Arguments::parse().command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "nova", &mut std::io::stdout());
        }
    }
}
