//! Ctrl-C and SIGTERM over real processes: nothing of a region outlives the command that started it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nova_path::answer;
use nova_path::process::is_alive;
use rustix::process::{Pid, Signal, kill_process};

use super::rig::bins;

/// A region starts, or ends, within this time.
const PATIENCE: Duration = Duration::from_secs(150);

/// `nova dev up` for the region in `folder`, whatever it says goes to a file beside it.
fn dev_up(folder: &Path, more: &[&str]) -> Child {
    let said = fs::File::options().create(true).append(true).open(folder.with_extension("said")).unwrap();
    Command::new(bins().join("nova"))
        .arg("--region")
        .arg(folder)
        .args(["--json", "dev", "up"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(said)
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn said(folder: &Path) -> String {
    fs::read_to_string(folder.with_extension("said")).unwrap()
}

/// Takes the records of all data planes out of `region.toml`, as if their command had been killed before it made them.
fn forget_novads(folder: &Path) {
    let path = folder.join("region.toml");
    let mut kept = String::new();
    let mut left_out = false;
    for line in fs::read_to_string(&path).unwrap().lines() {
        if line.starts_with('[') {
            left_out = line == "[hosts.novad]";
        }
        if !left_out {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    // Whole or not at all, as the command does it.
    fs::write(path.with_extension("kept"), kept).unwrap();
    fs::rename(path.with_extension("kept"), &path).unwrap();
}

/// Whatever still runs when the test ends, however it does.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let down =
            Command::new(bins().join("nova")).arg("--region").arg(self.0).args(["dev", "down"]).output();
        if std::thread::panicking() {
            eprintln!("{down:?}\n{}", said(self.0));
        }
    }
}

#[test]
fn nothing_of_a_region_outlives_the_command_that_started_it() {
    // Not /tmp, which may be in memory: devices ask for direct I/O.
    let home = tempfile::Builder::new().prefix("nova-interrupt-").tempdir_in("/var/tmp").unwrap();
    let folder = home.path().join("region");
    let _down = Down(&folder);

    let mut up = dev_up(&folder, &["--foreground", "--device-mib", "256"]);
    let mut answer = String::new();
    BufReader::new(up.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    let region: answer::Region = serde_json::from_str(&answer).unwrap();
    let processes = region.processes();
    assert_eq!(processes.len(), 11);
    assert!(processes.iter().all(|(_, pid)| is_alive(*pid)));
    forget_novads(&folder);
    signal(&up, Signal::INT);
    assert_eq!(up.wait().unwrap().code(), Some(0));
    let left: Vec<_> = processes.iter().filter(|(_, pid)| is_alive(*pid)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(said(&folder).contains("11 processes were ended again"));

    // And in the middle of the next start.
    let mut up = dev_up(&folder, &[]);
    let began = Instant::now();
    let recorded = || {
        let text = fs::read_to_string(folder.join("region.toml")).unwrap();
        let pids = text.lines().filter_map(|line| line.strip_prefix("pid = ")?.parse::<i32>().ok());
        pids.filter(|pid| is_alive(*pid)).collect::<Vec<_>>()
    };
    while recorded().len() < 5 {
        assert!(began.elapsed() < PATIENCE, "it does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    let started = recorded();
    signal(&up, Signal::TERM);
    assert_eq!(up.wait().unwrap().code(), Some(1));
    assert!(said(&folder).contains("stopped by SIGTERM"));
    assert!(started.iter().all(|pid| !is_alive(*pid)) && recorded().is_empty());
}
