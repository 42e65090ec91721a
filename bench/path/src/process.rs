//! What the kernel says of a process: processor time, memory, and where it listens.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Processor time a process has used, in user and system mode together. A zombie still has its sum.
///
/// # Errors
/// When there is no such process.
pub fn processor_time(pid: i32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = stat_ticks(&text).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no times"))
    })?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / per_second)))
}

/// Fields 14 and 15, utime and stime. The name in field 2 may hold blanks and parentheses.
fn stat_ticks(text: &str) -> Option<u64> {
    let (_, after_name) = text.rsplit_once(") ")?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A process and all that run below it. Empty when there is no such process.
///
/// # Errors
/// When the processes of this machine cannot be listed.
pub fn family(pid: i32) -> io::Result<Vec<i32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // One that ended since it was listed has no parent to tell of.
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parents.extend(stat_parent(&text).map(|parent| (pid, parent)));
    }
    let mut found: Vec<i32> = parents.iter().map(|&(known, _)| known).filter(|&known| known == pid).collect();
    let mut looked_at = 0;
    while let Some(&parent) = found.get(looked_at) {
        found.extend(parents.iter().filter(|&&(_, above)| above == parent).map(|&(child, _)| child));
        looked_at += 1;
    }
    Ok(found)
}

/// Field 4.
fn stat_parent(text: &str) -> Option<i32> {
    let (_, after_name) = text.rsplit_once(") ")?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a process exists and has not ended; a zombie has ended, unless threads of it are left, which hold its sockets.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let threads_left = || fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1);
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|text| text.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .is_some_and(|runs| runs || threads_left())
}

/// File name of the program a process runs.
#[must_use]
pub fn program(pid: i32) -> Option<String> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = exe.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

/// Memory of a process that is its own and in RAM, in bytes: without files and without shared arenas.
///
/// # Errors
/// When there is no such process.
pub fn own_memory(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status_bytes(&text, "RssAnon:").ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/status has no RssAnon"))
    })
}

fn status_bytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// A place where a process waits for connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listener {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket in the file system.
    Unix(PathBuf),
}

/// Every TCP port and Unix socket a process listens on.
///
/// # Errors
/// When there is no such process, or it is not ours to look at.
pub fn listeners(pid: i32) -> io::Result<BTreeSet<Listener>> {
    let mut own = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        own.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let rows = text.lines().skip(1).filter_map(tcp_listener);
        found.extend(rows.filter(|(inode, _)| own.contains(inode)).map(|(_, at)| Listener::Tcp(at)));
    }
    let text = fs::read_to_string(format!("/proc/{pid}/net/unix"))?;
    let rows = text.lines().skip(1).filter_map(unix_listener);
    found.extend(rows.filter(|(inode, _)| own.contains(inode)).map(|(_, path)| Listener::Unix(path)));
    Ok(found)
}

/// State 0A is LISTEN. The address is in hexadecimal words of the machine's byte order; the port is not.
fn tcp_listener(row: &str) -> Option<(u64, SocketAddr)> {
    let fields: Vec<&str> = row.split_ascii_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (address, port) = fields[1].split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(u32::from_be(word).to_be_bytes());
    }
    let address: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some((fields.get(9)?.parse().ok()?, SocketAddr::new(address, port)))
}

/// Flag 10000 is "accepts connections". A socket without a path has no seventh blank.
fn unix_listener(row: &str) -> Option<(u64, PathBuf)> {
    let fields: Vec<&str> = row.split_ascii_whitespace().collect();
    let accepts = u32::from_str_radix(fields.get(3)?, 16).ok()? & 0x1_0000 != 0;
    let path = fields.get(7).filter(|path| path.starts_with('/'))?;
    accepts.then(|| Some((fields[6].parse().ok()?, PathBuf::from(path))))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_after_a_name_with_parentheses() {
        let text = "12 (a) b (c)) S 1 12 12 0 -1 4194560 100 0 0 0 25 17 0 0 20 0 1 0 100 1000 100 1844";
        assert_eq!(stat_ticks(text), Some(42));
        assert_eq!(stat_ticks("12 (short) S 1"), None);
    }

    #[test]
    fn a_process_is_found_with_what_it_started_and_what_that_started() {
        let mut shell = std::process::Command::new("sh");
        let script = shell.args(["-c", "(sleep 60; :) & echo; wait"]).stdout(std::process::Stdio::piped());
        let mut child = script.spawn().unwrap();
        // The shell has started what is below it once it says a line.
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        let mut found = family(pid).unwrap();
        while found.len() < 3 && std::time::Instant::now() < until {
            std::thread::yield_now();
            found = family(pid).unwrap();
        }
        for &pid in found.iter().rev() {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
        assert_eq!((found.len(), found[0]), (3, pid));
        assert!(family(-1).unwrap().is_empty());
    }

    #[test]
    fn memory_is_read_in_kib() {
        assert_eq!(status_bytes("Name:\tx\nRssAnon:\t    12 kB\n", "RssAnon:"), Some(12 * 1024));
        assert_eq!(status_bytes("Name:\tx\n", "RssAnon:"), None);
    }

    #[test]
    fn a_listening_port_is_decoded() {
        let row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x";
        let word = u32::from_be_bytes([127, 0, 0, 1]).to_be();
        let row = row.replace("0100007F", &format!("{word:08X}"));
        assert_eq!(tcp_listener(&row), Some((4711, "127.0.0.1:8080".parse().unwrap())));
        assert_eq!(tcp_listener(&row.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn our_own_listeners_memory_and_time_are_found() {
        let me = i32::try_from(std::process::id()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = listeners(me).unwrap();
        assert!(found.contains(&Listener::Tcp(tcp.local_addr().unwrap())), "{found:?}");
        assert!(found.contains(&Listener::Unix(path)), "{found:?}");
        assert!(own_memory(me).unwrap() > 0);
        assert!(processor_time(me).is_ok() && is_alive(me));
        assert!(processor_time(-1).is_err() && !is_alive(-1));
    }
}
