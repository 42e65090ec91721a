//! Binary nova: everything a person types; also starts a region on one machine.
//!
//! Results go to standard output, as text or (`--json`) as one JSON object; progress and messages go to standard
//! error. `dev` handles processes of this machine, `cluster`, `node` and `key` ask the controllers over gRPC as the operator,
//! `fs` and `mount` are local programs like any other and speak to the agent of
//! one host. `bulk` hands over to a tool of the data plane.
#![forbid(unsafe_code)]

mod arguments;
mod bulk;
mod cluster;
mod dev;
mod exit;
mod fs;
mod identity;
mod key;
mod mount;
mod output;
mod progress;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    let done = match command {
        Command::Dev(command) => dev::run(&global, command),
        Command::Cluster(command) => cluster::run(&global, command),
        Command::Node(command) => cluster::run_node(&global, command),
        Command::Key(command) => key::run(&global, command),
        Command::Fs(command) => fs::run(&global, command),
        Command::Bulk(command) => bulk::run(&global, &command),
        Command::Identity(command) => identity::run(&global, &command),
        Command::Mount(command) => mount::run(&global, &command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "nova", &mut script);
            output::write(&script)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
