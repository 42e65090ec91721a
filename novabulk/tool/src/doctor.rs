//! `nova bulk doctor`: what of this machine keeps copies from being fast.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::{Global, output};

/// A connection over a long path needs buffers of twice what is on its way: 64 MiB are 6.7 Gbit/s at 80 ms.
const SOCKET_BYTES_WANTED: u64 = 64 << 20;
/// The arena of a command, and the ring beside it.
const MEMLOCK_BYTES_WANTED: u64 = 320 << 20;
/// Files of a copy that are open at the same time, connections, and the rest.
const FILES_WANTED: u64 = 4096;
/// Ethernet with the frames that a local network usually can.
const MTU_WANTED: u64 = 9000;

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    value: String,
    good: bool,
    /// What to do, and why.
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct View {
    findings: Vec<Finding>,
}

pub(crate) fn run(global: &Global) -> anyhow::Result<()> {
    let mut findings = socket_buffers(Path::new("/proc/sys/net"));
    findings.extend(limits());
    findings.extend(interfaces(Path::new("/sys/class/net")));
    output::print(global.json, &View { findings }, View::text)
}

impl View {
    fn text(&self) -> String {
        let line = |finding: &Finding| {
            let mark = if finding.good { "ok    " } else { "change" };
            let advice =
                finding.advice.as_ref().map(|text| format!("\n          {text}")).unwrap_or_default();
            format!("{mark}  {}: {}{advice}\n", finding.what, finding.value)
        };
        self.findings.iter().map(line).collect()
    }
}

/// How much of a connection may be under way.
fn socket_buffers(net: &Path) -> Vec<Finding> {
    let keys = ["core/rmem_max", "core/wmem_max", "ipv4/tcp_rmem", "ipv4/tcp_wmem"];
    let look = |key: &str| {
        let text = fs::read_to_string(net.join(key)).ok()?;
        // The last of three numbers is the bound that the kernel grows a buffer to.
        let most: u64 = text.split_whitespace().last()?.parse().ok()?;
        let good = most >= SOCKET_BYTES_WANTED;
        let name = format!("net.{}", key.replace('/', "."));
        let advice = (!good).then(|| {
            let value = if key.starts_with("core") {
                SOCKET_BYTES_WANTED.to_string()
            } else {
                format!("\"4096 131072 {SOCKET_BYTES_WANTED}\"")
            };
            format!(
                "over a path of 80 ms one connection gets {} Mbit/s at most: sysctl -w {name}={value}, or more --streams",
                most * 8 / 80 / 1000
            )
        });
        Some(Finding { what: name, value: output::bytes(most), good, advice })
    };
    keys.into_iter().filter_map(look).collect()
}

/// What this process may have.
fn limits() -> Vec<Finding> {
    let one = |what: &str, resource, wanted: u64, show: fn(u64) -> String, advice: &str| {
        let most = getrlimit(resource).current;
        let good = most.is_none_or(|most| most >= wanted);
        Finding {
            what: what.to_owned(),
            value: most.map_or("unlimited".to_owned(), show),
            good,
            advice: (!good).then(|| advice.to_owned()),
        }
    };
    vec![
        one(
            "locked memory",
            Resource::Memlock,
            MEMLOCK_BYTES_WANTED,
            output::bytes,
            "buffers are not registered with the kernel, and every read and write pins its pages anew: ulimit -l unlimited",
        ),
        one(
            "open files",
            Resource::Nofile,
            FILES_WANTED,
            |count| count.to_string(),
            "copies of many large files may run out of descriptors: ulimit -n 65536",
        ),
    ]
}

/// What the network cards do.
fn interfaces(net: &Path) -> Vec<Finding> {
    let Ok(cards) = fs::read_dir(net) else { return Vec::new() };
    let mut names: Vec<_> = cards.filter_map(|card| card.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter_map(|name| interface(net, name)).collect()
}

/// The frame size of a card that is up, with its speed where it tells one.
fn interface(net: &Path, name: &str) -> Option<Finding> {
    let read =
        |key: &str| fs::read_to_string(net.join(name).join(key)).ok().map(|text| text.trim().to_owned());
    if name == "lo" || read("operstate")? != "up" {
        return None;
    }
    let mtu: u64 = read("mtu")?.parse().ok()?;
    let speed = read("speed").and_then(|text| text.parse::<i64>().ok()).filter(|speed| *speed > 0);
    let good = mtu >= MTU_WANTED;
    let speed = speed.map_or("speed not known".to_owned(), |speed| format!("{speed} Mbit/s"));
    let advice = format!(
        "frames of 1500 bytes carry 95 of 100 bits of payload, of 9000 bytes 99: ip link set {name} mtu 9000, when every \
         host and switch of that network can"
    );
    Some(Finding {
        what: format!("network card {name}"),
        value: format!("frames of {mtu} bytes, {speed}"),
        good,
        advice: (!good).then_some(advice),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buffers_are_found_with_the_command_that_changes_them() {
        let net = tempfile::tempdir().unwrap();
        fs::create_dir_all(net.path().join("core")).unwrap();
        fs::create_dir_all(net.path().join("ipv4")).unwrap();
        fs::write(net.path().join("core/rmem_max"), "212992\n").unwrap();
        fs::write(net.path().join("ipv4/tcp_rmem"), "4096\t131072\t4194304\n").unwrap();
        fs::write(net.path().join("ipv4/tcp_wmem"), "4096 16384 134217728\n").unwrap();
        let findings = socket_buffers(net.path());
        let good: Vec<bool> = findings.iter().map(|finding| finding.good).collect();
        assert_eq!(good, [false, false, true]);
        let advice = findings[1].advice.as_deref().unwrap();
        assert!(advice.contains("419 Mbit/s") && advice.contains("sysctl -w net.ipv4.tcp_rmem="), "{advice}");
    }

    #[test]
    fn cards_that_are_down_say_nothing_and_small_frames_are_found() {
        let net = tempfile::tempdir().unwrap();
        for (name, state, mtu) in [("eth0", "up", "1500"), ("eth1", "down", "1500"), ("eth2", "up", "9000")] {
            let card = net.path().join(name);
            fs::create_dir(&card).unwrap();
            fs::write(card.join("operstate"), state).unwrap();
            fs::write(card.join("mtu"), mtu).unwrap();
        }
        let findings = interfaces(net.path());
        let told: Vec<_> = findings.iter().map(|finding| (finding.what.as_str(), finding.good)).collect();
        assert_eq!(told, [("network card eth0", false), ("network card eth2", true)]);
    }
}
