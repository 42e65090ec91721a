//! Whoever reads the output of `nova` may go away at any time (`| head -1`): the command ends with its usual code.

use std::process::{Command, Stdio};

/// The code of a command, read to its end or by nobody.
fn code(arguments: &[&str], read: bool) -> Option<i32> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nova"));
    command.arg("--region").arg(folder.path().join("none")).args(arguments).stdin(Stdio::null());
    if read {
        return command.output().unwrap().status.code();
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap().code()
}

#[test]
fn a_pipe_that_nobody_reads_changes_no_code() {
    for (arguments, expected) in [
        (&["completions", "bash"][..], 0),
        (&["fs", "health"], 3),
        (&["fs", "stat", "hot"], 3),
        (&["fs", "no-such-command"], 2),
    ] {
        assert_eq!(code(arguments, true), Some(expected), "{arguments:?}");
        assert_eq!(code(arguments, false), Some(expected), "{arguments:?} into a closed pipe");
    }
}
