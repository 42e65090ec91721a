//! `nova bulk`: files between hosts that need no region. The tool is a binary of its own, `nova-bulk`, because it runs a
//! shard of the data plane, and another runtime stands on this side of the wall (docs/adr/0027). This hands over to it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::arguments::{Global, Progress};
use crate::exit::Stop;

/// The name of the tool.
const TOOL: &str = "nova-bulk";

/// What goes to the tool as it is.
#[derive(Args, Debug)]
pub(crate) struct Bulk {
    /// The command and its options; `nova bulk --help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

pub(crate) fn run(global: &Global, bulk: &Bulk) -> anyhow::Result<()> {
    let tool = tool()?;
    let error = Command::new(&tool).args(arguments(global, bulk)).exec();
    let text = format!("run {}: {error}; install it beside nova", tool.display());
    Err(Stop::unavailable(text))
}

/// The tool of our own folder, or of the search path.
fn tool() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(TOOL);
    Ok(if beside.is_file() { beside } else { PathBuf::from(TOOL) })
}

/// Options that stood before `bulk` go along.
fn arguments(global: &Global, bulk: &Bulk) -> Vec<OsString> {
    let mut all = Vec::new();
    if global.json {
        all.push("--json".into());
    }
    match global.progress {
        Progress::Auto => {}
        Progress::Always => all.push("--progress=always".into()),
        Progress::Never => all.push("--progress=never".into()),
    }
    all.extend(bulk.arguments.iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command as Known};

    fn handed_over(line: &str) -> Vec<String> {
        let Arguments { global, command } = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Known::Bulk(bulk) = command else { panic!("{line} is for the tool") };
        arguments(&global, &bulk).into_iter().map(|one| one.into_string().unwrap()).collect()
    }

    #[test]
    fn everything_behind_bulk_goes_to_the_tool_as_it_is() {
        assert_eq!(
            handed_over("nova --json bulk copy --delete a h:1/b"),
            ["--json", "copy", "--delete", "a", "h:1/b"]
        );
        assert_eq!(handed_over("nova bulk --help"), ["--help"]);
        assert_eq!(
            handed_over("nova bulk copy --progress never a b"),
            ["copy", "--progress", "never", "a", "b"]
        );
    }
}
