//! The short form of the million files.

use std::process::Command;

use serde_json::Value;

/// Files that are made: enough for some snapshots.
const FILES: u64 = 6000;
/// No create waits so long, not even on a busy machine: a snapshot holds nobody up.
const CREATE_MS_MAX: f64 = 10_000.0;

#[test]
fn files_are_made_while_snapshots_are_written_and_all_are_listed() {
    let output = Command::new(env!("CARGO_BIN_EXE_creates"))
        .args(["--files", &FILES.to_string(), "--snapshot-seconds", "2", "--profile", "ci", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{told}");
    let (during, between) = (&told["during_snapshots"], &told["between_snapshots"]);
    let count = |of: &Value| of["creates"].as_u64().unwrap();
    assert_eq!(count(during) + count(between), FILES);
    assert!(told["snapshots"].as_u64().unwrap() > 0 && count(during) > 0, "{told}");
    for of in [during, between] {
        assert!(of["max_ms"].as_f64().unwrap() < CREATE_MS_MAX, "{told}");
    }
}
