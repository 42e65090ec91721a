//! The checks of CI that are not tests, one after the other, each with its time.

use anyhow::{Context, Result};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::tidy;
use crate::workspace::Workspace;

/// A cargo command that must succeed.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Set for the command; `None` sets nothing.
    variable: Option<(&'static str, &'static str)>,
}

const STEPS: [Step; 3] = [
    Step { name: "formatting", arguments: &["fmt", "--all", "--check"], variable: None },
    Step {
        name: "clippy",
        arguments: &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        variable: None,
    },
    Step {
        name: "documentation",
        arguments: &["doc", "--workspace", "--no-deps", "--locked"],
        variable: Some(("RUSTDOCFLAGS", "-D warnings")),
    },
];

/// Runs every step, also after one has failed, so that one run shows all there is to mend.
pub(crate) fn run() -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let mut failed = Vec::new();
    for step in &STEPS {
        let start = Instant::now();
        let passed = run_step(step, &workspace)?;
        println!("ci: {} {} in {:.1} s", step.name, verdict(passed), start.elapsed().as_secs_f64());
        if !passed {
            failed.push(step.name);
        }
    }
    let findings = tidy::check(&workspace)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    println!("ci: tidy {}", verdict(findings.is_empty()));
    if !findings.is_empty() {
        failed.push("tidy");
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("ci: failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn run_step(step: &Step, workspace: &Workspace) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(step.arguments).current_dir(&workspace.root);
    if let Some((name, value)) = step.variable {
        command.env(name, value);
    }
    let status = command.status().with_context(|| format!("run cargo {}", step.arguments.join(" ")))?;
    Ok(status.success())
}

fn verdict(passed: bool) -> &'static str {
    if passed { "passed" } else { "FAILED" }
}
