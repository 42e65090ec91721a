//! Runs of a few seconds.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const BENCH: &str = env!("CARGO_BIN_EXE_transfer");
/// A run that was asked to end is gone within this time.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether a program ends well.
fn does(words: &[&str]) -> bool {
    let done = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// What this machine does not let us make.
fn lacks() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root");
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let Some(groups) = mounts.lines().find(|line| line.contains(" cgroup2 ")) else {
        return Some("there are no control groups of version 2");
    };
    let name = format!("nova-try-{}-{:?}", std::process::id(), std::thread::current().id());
    let name = name.replace(['(', ')'], "-");
    let group = Path::new(groups.split(' ').nth(1).unwrap()).join(&name);
    if fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)).is_err() {
        return Some("no control group can be made");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun");
    }
    if !does(&["ip", "netns", "add", &name]) {
        return Some("no network namespace can be made");
    }
    let bucket = ["root", "tbf", "rate", "1gbit", "burst", "1mb", "latency", "10ms"];
    let limits = does(&[&["tc", "-n", &name, "qdisc", "add", "dev", "lo"][..], &bucket].concat());
    assert!(does(&["ip", "netns", "del", &name]), "{name} was just made");
    (!limits).then_some("the kernel has no token bucket filter")
}

/// Whether this machine lets us make ends; else the test is counted as skipped.
fn can_run() -> bool {
    let Some(why) = lacks() else { return true };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED {test}: {why}");
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut list = OpenOptions::new().create(true).append(true).open(list).unwrap();
    writeln!(list, "{test}: {why}").unwrap();
    false
}

fn bench(words: &[&str]) -> Command {
    let mut command = Command::new(BENCH);
    command.args(words).args(["--rounds", "1", "--json"]).stdin(Stdio::null());
    command
}

/// What a run with this process id would leave behind: namespaces, control groups, its folder, its mounts.
fn left_behind(pid: u32) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let groups = mounts.lines().find(|line| line.contains(" cgroup2 ")).unwrap().split(' ').nth(1).unwrap();
    let mut left = Vec::new();
    for folder in ["/run/netns", "/var/tmp", groups] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let ours = |path: &PathBuf| {
            path.file_name().unwrap().to_string_lossy().split('-').nth(1) == Some(&pid.to_string())
                && path.to_string_lossy().contains("novabench-")
        };
        left.extend(entries.map(|entry| entry.unwrap().path()).filter(ours));
    }
    left
}

fn finish(child: Child) -> (u32, Option<i32>, Vec<serde_json::Value>) {
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (pid, output.status.code(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn a_run_copies_compares_tells_what_it_cost_and_leaves_nothing_behind() {
    if !can_run() {
        return;
    }
    let words = ["--row", "large@1,small@none", "--large-mib", "4", "--small-files", "300"];
    let (pid, code, lines) = finish(bench(&words).stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(code, Some(0));
    let rows: Vec<_> = lines.iter().filter(|line| line["bench"] == "transfer").collect();
    assert_eq!(rows.len(), 2, "{lines:?}");
    for row in rows {
        assert_eq!((&row["peer"], &row["took_too_long"]), (&"nova bulk".into(), &false.into()));
        // Both ends worked, and were seen to.
        assert!(row["sender_cpu_s_per_gb"].as_f64() > Some(0.0), "{row}");
        assert!(row["receiver_cpu_s_per_gb"].as_f64() > Some(0.0), "{row}");
    }
    // A link of 1 Gbit/s carries no more than that.
    assert!(lines[0]["share_of_link"].as_f64() < Some(1.0), "{}", lines[0]);
    assert_eq!(left_behind(pid), Vec::<PathBuf>::new());
}

#[test]
fn a_run_over_a_long_line_takes_the_time_that_light_would() {
    if !can_run() {
        return;
    }
    let words = ["--row", "large@0.1", "--large-mib", "1", "--delay", "200ms", "--loss", "0.1%"];
    let (pid, code, lines) = finish(bench(&words).stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(code, Some(0));
    // To connect, to shake hands, to ask and to be answered takes four times there and back.
    let seconds = 8.0 * 1.048_576 / 1000.0 / lines[0]["gbit_per_s"].as_f64().unwrap();
    assert!(seconds > 0.8, "{seconds} s");
    assert_eq!(left_behind(pid), Vec::<PathBuf>::new());
}

#[test]
fn a_run_that_is_interrupted_leaves_nothing_behind() {
    if !can_run() {
        return;
    }
    let mut command = bench(&["--row", "large@0.01", "--large-mib", "64"]);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let until = Instant::now() + END_TIMEOUT;
    while left_behind(pid).len() < 5 {
        assert!(Instant::now() < until, "it has not begun: {:?}", left_behind(pid));
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::INT).unwrap();
    let asked = Instant::now();
    assert_eq!(finish(child).1, Some(1));
    assert!(asked.elapsed() < END_TIMEOUT);
    assert_eq!(left_behind(pid), Vec::<PathBuf>::new());
}
