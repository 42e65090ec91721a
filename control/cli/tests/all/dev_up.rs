//! `nova dev up` that does not come to its end: whatever it started is ended, and nothing else. The programs of the
//! region are scripts here that never serve; `bench/path` does the same with real ones.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// One controller, three hosts with two programs each.
const PROCESSES: usize = 7;
/// Whatever is waited for happens within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Runs until it is told to end.
const PROGRAM: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.05 & wait $!; done\n";

/// A folder with a region, and programs that do nothing.
struct Dev {
    folder: tempfile::TempDir,
}

impl Dev {
    fn new() -> Self {
        // Not /tmp, which may be in memory and too small for what a region asks for.
        let dev =
            Self { folder: tempfile::Builder::new().prefix("nova-dev-").tempdir_in("/var/tmp").unwrap() };
        fs::create_dir(dev.path("bins")).unwrap();
        for name in ["nova-control", "nova-agent", "novad"] {
            let path = dev.path("bins").join(name);
            fs::write(&path, PROGRAM).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        dev
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nova"));
        command.arg("--region").arg(self.path("region")).args(arguments).stdin(Stdio::null());
        command
    }

    fn nova(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts `nova dev up`, which waits for a region that never serves.
    fn up(&self) -> Child {
        let bins = self.path("bins");
        let arguments =
            ["dev", "up", "--controllers", "1", "--compute", "0", "--device-mib", "256", "--bins"];
        self.command(&arguments).arg(bins).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The processes that are recorded.
    fn recorded(&self) -> Vec<i32> {
        let Ok(text) = fs::read_to_string(self.path("region/region.toml")) else { return Vec::new() };
        let region: toml::Table = text.parse().unwrap();
        let of = |kind: &str, names: &[&str]| -> Vec<i32> {
            let all = region.get(kind).and_then(toml::Value::as_array).cloned().unwrap_or_default();
            let pid = |one: &toml::Value, name: &&str| one.get(*name)?.get("pid")?.as_integer();
            all.iter()
                .flat_map(|one| names.iter().filter_map(move |name| pid(one, name)))
                .map(|pid| i32::try_from(pid).unwrap())
                .collect()
        };
        [of("controllers", &["control"]), of("hosts", &["novad", "agent"])].concat()
    }

    /// Starts a region and waits until all of its processes run.
    fn up_until_started(&self) -> (Child, Vec<i32>) {
        let mut child = self.up();
        let began = Instant::now();
        let started = loop {
            let pids = self.recorded();
            if pids.len() == PROCESSES && pids.iter().all(|pid| is_alive(*pid)) {
                break Ok(pids);
            }
            if began.elapsed() > PATIENCE {
                break Err(pids);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let pids = started.unwrap_or_else(|pids| {
            child.kill().unwrap();
            panic!("started only {pids:?}: {:?}", child.wait())
        });
        (child, pids)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Whatever a failed test left behind.
        let _ = self.command(&["dev", "down"]).output();
    }
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|text| text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Exit code, and what was said on standard error.
fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_signal_while_a_region_starts_ends_what_was_started_and_says_so() {
    let dev = Dev::new();
    // The second time the region is there already, and is started again.
    for (asked, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM"), (Signal::HUP, "SIGHUP")] {
        let (child, pids) = dev.up_until_started();
        signal(child.id(), asked);
        let (code, error) = said(&child.wait_with_output().unwrap());
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains(name) && error.contains("7 processes were ended again"), "{error}");
        assert!(pids.iter().all(|pid| !is_alive(*pid)), "left behind after {name}: {error}");
    }
    let down = dev.nova(&["dev", "down"]);
    assert!(String::from_utf8_lossy(&down.stdout).contains("down already"), "{down:?}");
}

#[test]
fn one_command_at_a_time_starts_a_region() {
    let dev = Dev::new();
    let (child, pids) = dev.up_until_started();
    for command in ["up", "down"] {
        let (code, error) = said(&dev.nova(&["dev", command]));
        assert_eq!(code, Some(4), "{error}");
        assert!(error.contains("another `nova dev` command"), "{error}");
    }
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    signal(child.id(), Signal::INT);
    child.wait_with_output().unwrap();
}

#[test]
fn a_half_started_region_is_taken_down_after_its_command_was_killed() {
    let dev = Dev::new();
    let (mut child, pids) = dev.up_until_started();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(pids.iter().all(|pid| is_alive(*pid)), "nobody could end them");

    let (code, error) = said(&dev.nova(&["dev", "up"]));
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("all processes run") && error.contains("`nova dev down` ends it"), "{error}");
    for pid in &pids[..2] {
        signal(u32::try_from(*pid).unwrap(), Signal::KILL);
    }
    let began = Instant::now();
    while pids[..2].iter().any(|pid| is_alive(*pid)) {
        assert!(began.elapsed() < PATIENCE);
    }
    let (_, error) = said(&dev.nova(&["dev", "up"]));
    assert!(error.contains("5 of 7 processes run") && error.contains("nova dev restart"), "{error}");

    let down = dev.nova(&["dev", "down"]);
    assert!(String::from_utf8_lossy(&down.stdout).starts_with("5 processes ended"), "{down:?}");
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn a_recorded_id_that_is_another_process_by_now_is_left_alone() {
    let dev = Dev::new();
    let (child, _) = dev.up_until_started();
    signal(child.id(), Signal::TERM);
    child.wait_with_output().unwrap();

    // Lives as long as this test, however that ends.
    let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let path = dev.path("region/region.toml");
    let mut region: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    let host = region["hosts"].as_array_mut().unwrap()[0].as_table_mut().unwrap();
    let novad = host["novad"].as_table_mut().unwrap();
    novad.insert("pid".into(), toml::Value::Integer(other.id().into()));
    fs::write(&path, region.to_string()).unwrap();

    let down = dev.nova(&["dev", "down"]);
    assert!(String::from_utf8_lossy(&down.stdout).contains("down already"), "{down:?}");
    assert!(other.try_wait().unwrap().is_none(), "it was not ours to end");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn an_address_that_is_taken_is_named_before_anything_starts() {
    let dev = Dev::new();
    let (child, _) = dev.up_until_started();
    signal(child.id(), Signal::TERM);
    child.wait_with_output().unwrap();
    let region: toml::Table = fs::read_to_string(dev.path("region/region.toml")).unwrap().parse().unwrap();
    let address = region["controllers"].as_array().unwrap()[0]["address"].as_str().unwrap().to_owned();

    let taken = std::net::TcpListener::bind(&address).unwrap();
    let (code, error) = said(&dev.nova(&["dev", "up"]));
    assert_eq!(code, Some(1), "{error}");
    for part in [&*address, "controller-1", "ss -ltnp", "nova dev down --wipe"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(dev.recorded().iter().all(|pid| !is_alive(*pid)), "nothing was started");
    drop(taken);
}
