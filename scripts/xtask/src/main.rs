//! Project tasks: `tidy` checks the rules of the house, `spec` shows where each section of the
//! specification is cited, `ci` runs every check that is not a test.
#![forbid(unsafe_code)]

mod ci;
mod finding;
mod source;
mod spec;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

use crate::workspace::Workspace;

/// Tasks of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check crate directions, unsafe code, purity, licences, files, documents and the spec table.
    Tidy,
    /// List, for each section of the specification, the code and the tests that cite it.
    Spec {
        /// Only this section, for example 3.7 or B.1.
        section: Option<String>,
    },
    /// Formatting, clippy, documentation and tidy; `.ci/run` calls it after the tests.
    Ci,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().task {
        Task::Tidy => run_tidy(),
        Task::Spec { section } => {
            print!("{}", spec::report(&Workspace::load()?, section.as_deref())?);
            Ok(ExitCode::SUCCESS)
        }
        Task::Ci => ci::run(),
    }
}

fn run_tidy() -> Result<ExitCode> {
    let findings = tidy::check(&Workspace::load()?)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: every rule holds");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tidy: {} findings", findings.len());
    Ok(ExitCode::FAILURE)
}
