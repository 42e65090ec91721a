//! Every host of a region in a network namespace of its own, so that any way between two of them can be cut.
//!
//! The programs know nothing of it: they listen at and speak to addresses of loopback, as in any region of one machine.
//! In each namespace the kernel's own address translation sends what goes to a port of another host over a bridge to
//! that host, and a set of addresses says whose packets are dropped where they arrive. So a cut is silent, takes effect
//! on connections that exist, and has a direction.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nova_path::interrupt::Interrupt;
use nova_path::nova::Nova;
use nova_path::region::{Region, Size};
use tempfile::TempDir;

use super::rig::{IN_SYNC_TIMEOUT, Rig, bins};

/// The region's file is written within this time of the start of `nova dev up`.
const LAID_OUT_WITHIN: Duration = Duration::from_secs(60);
/// The host on which `nova` runs.
const EDGE: &str = "compute-1";
/// Where no host is: only the bridge.
const SWITCH: &str = "switch";

/// Why hosts cannot have namespaces here.
pub(crate) fn cannot_part_hosts() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let name = format!("nova-try-{}", std::process::id());
    if let Err(why) = run(&["ip", "netns", "add", &name], "") {
        return Some(format!("no network namespace can be made: {why}"));
    }
    let _ = run(&["ip", "netns", "del", &name], "");
    if run(&["nft", "--version"], "").is_err()
        && let Err(why) = run(&["apt-get", "install", "-y", "--no-install-recommends", "nftables"], "")
    {
        return Some(format!("there is no nft, and nftables could not be installed: {why}"));
    }
    None
}

/// Runs a program to its end with `input`; an error with what it said.
fn run(words: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", words[0]))?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let ended = child.wait_with_output().map_err(|error| error.to_string())?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&ended.stderr))),
    }
}

/// The namespaces of a region; they go with this.
pub(crate) struct Namespaces {
    prefix: String,
    /// Hosts and controllers by name, with the last byte of their address.
    numbers: BTreeMap<String, u8>,
}

impl Namespaces {
    fn make(names: &[String]) -> Self {
        static MADE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = MADE.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("nova-{}-{count}", std::process::id());
        let numbers = names.iter().cloned().zip(1..).collect();
        let made = Self { prefix, numbers };
        made.add(SWITCH);
        made.ip(SWITCH, "link add br0 type bridge");
        made.ip(SWITCH, "link set br0 up");
        for (name, number) in &made.numbers {
            made.add(name);
            let (port, inside) = (format!("p{number}"), made.name(name));
            made.ip(SWITCH, &format!("link add {port} type veth peer name eth0 netns {inside}"));
            made.ip(SWITCH, &format!("link set {port} master br0 up"));
            made.ip(name, &format!("addr add 10.77.0.{number}/24 dev eth0"));
            made.ip(name, "link set eth0 up");
            // Without it the kernel lets nothing with an address of loopback leave a host.
            for of in ["all", "eth0"] {
                made.inside(
                    name,
                    &["sh", "-c", &format!("echo 1 > /proc/sys/net/ipv4/conf/{of}/route_localnet")],
                    "",
                );
            }
        }
        made
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn add(&self, host: &str) {
        run(&["ip", "netns", "add", &self.name(host)], "").unwrap();
        self.ip(host, "link set lo up");
    }

    fn ip(&self, host: &str, words: &str) {
        let namespace = self.name(host);
        let mut all = vec!["ip", "-n", &namespace];
        all.extend(words.split(' '));
        run(&all, "").unwrap();
    }

    fn inside(&self, host: &str, words: &[&str], input: &str) {
        let namespace = format!("--net=/run/netns/{}", self.name(host));
        let mut all = vec!["nsenter", &namespace];
        all.extend(words);
        run(&all, input).unwrap();
    }

    /// Sends what goes to a port to the host that listens there.
    fn route(&self, ports: &BTreeMap<String, Vec<u16>>) {
        for host in self.numbers.keys() {
            let others = ports.iter().filter(|(of, _)| *of != host);
            let ways = others.flat_map(|(of, ports)| {
                ports.iter().map(|port| format!("{port} : 10.77.0.{}", self.numbers[of]))
            });
            let ways = ways.collect::<Vec<_>>().join(", ");
            let own: Vec<String> = ports.get(host).into_iter().flatten().map(u16::to_string).collect();
            let inwards = match own.is_empty() {
                true => String::new(),
                false => format!("iifname \"eth0\" tcp dport {{ {} }} dnat to 127.0.0.1", own.join(", ")),
            };
            let rules = format!(
                "table ip nova {{
                    set cut {{ type ipv4_addr; }}
                    map hosts {{ type inet_service : ipv4_addr; elements = {{ {ways} }} }}
                    chain drops {{ type filter hook prerouting priority raw; iifname \"eth0\" ip saddr @cut drop; }}
                    chain outwards {{ type nat hook output priority -100;
                        ip daddr 127.0.0.0/8 meta l4proto tcp dnat to tcp dport map @hosts; }}
                    chain inwards {{ type nat hook prerouting priority dstnat; {inwards}; }}
                    chain leaving {{ type nat hook postrouting priority srcnat; oifname \"eth0\" masquerade; }}
                }}"
            );
            self.inside(host, &["nft", "-f", "-"], &rules);
        }
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        let element = format!("add element ip nova cut {{ 10.77.0.{} }}", self.numbers[from]);
        self.inside(to, &["nft", &element], "");
    }

    /// Nothing passes between the two.
    pub(crate) fn part(&self, one: &str, other: &str) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// All ways are free again.
    pub(crate) fn heal(&self) {
        for host in self.numbers.keys() {
            self.inside(host, &["nft", "flush", "set", "ip", "nova", "cut"], "");
        }
    }

    /// All hosts and controllers.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.numbers.keys().map(String::as_str)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for host in self.hosts().chain([SWITCH]) {
            let _ = run(&["ip", "netns", "del", &self.name(host)], "");
        }
    }
}

/// A region whose hosts are parted at will.
pub(crate) struct Parted {
    pub(crate) rig: Rig,
    pub(crate) namespaces: Namespaces,
    /// Where the programs that enter the namespaces are.
    _entries: TempDir,
}

impl Parted {
    /// Starts a region of `size`; `name` is the test's, for its logs.
    pub(crate) fn start(name: &str, size: &Size) -> Self {
        let of = |word: &str, count: u32| (1..=count).map(|it| format!("{word}-{it}")).collect::<Vec<_>>();
        let names =
            [of("controller", size.controllers), of("storage", size.storage), of("compute", size.compute)]
                .concat();
        let namespaces = Namespaces::make(&names);
        let folder = tempfile::Builder::new().prefix("nova-path-").tempdir_in("/var/tmp").unwrap();
        let entries = tempfile::Builder::new().prefix("nova-entries-").tempdir_in("/var/tmp").unwrap();
        let ways = entries.path().join("ways");
        for program in ["nova", "nova-control", "nova-agent", "novad"] {
            write_entry(entries.path(), program, &namespaces, &ways);
        }
        let region_folder = folder.path().join("region");
        let nova = Nova::new(entries.path(), &region_folder, Interrupt::default()).unwrap();
        let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.logs"));
        let _ = fs::remove_dir_all(&logs);
        let over = AtomicBool::new(false);
        // Which ports there are is known when the region is laid out; no program starts before its ways are there.
        let region = thread::scope(|scope| {
            scope.spawn(|| {
                let begun = Instant::now();
                while begun.elapsed() < LAID_OUT_WITHIN && !over.load(Ordering::Relaxed) {
                    if let Some(ports) = ports_of(&region_folder.join("region.toml"), names.len()) {
                        namespaces.route(&ports);
                        return fs::write(&ways, "open\n").unwrap();
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let region = Region::up(nova, entries.path(), size, &logs);
            over.store(true, Ordering::Relaxed);
            region
        });
        let region = region.unwrap();
        region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
        Self { rig: Rig { region, folder }, namespaces, _entries: entries }
    }
}

/// A program that enters the namespace of the host whose configuration it is given, and becomes the real one there.
fn write_entry(folder: &Path, program: &str, namespaces: &Namespaces, ways: &Path) {
    let real: PathBuf = bins().join(program);
    let cases: String = namespaces.hosts().map(|host| format!("*/{host}/*) at={host} ;;\n")).collect();
    let wait = if program == "nova" { "" } else { "while [ ! -e \"$ways\" ]; do sleep 0.05; done\n" };
    let text = format!(
        "#!/bin/sh\nways={}\nat={EDGE}\n{}{wait}exec nsenter --net=/run/netns/{}-$at {} \"$@\"\n",
        ways.display(),
        if program == "nova" { String::new() } else { format!("case \"$2\" in\n{cases}esac\n") },
        namespaces.prefix,
        real.display()
    );
    let path = folder.join(program);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The ports at which hosts and controllers listen, by name; `None` while the region's file does not name `count`.
fn ports_of(file: &Path, count: usize) -> Option<BTreeMap<String, Vec<u16>>> {
    let text = fs::read_to_string(file).ok()?;
    let mut found: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let value = value.trim_matches('"');
        match key {
            "name" => value.clone_into(&mut name),
            "address" | "data_address" => {
                let port = value.rsplit(':').next()?.parse().ok()?;
                found.entry(name.clone()).or_default().push(port);
            }
            _ => {}
        }
    }
    (found.len() == count).then_some(found)
}
