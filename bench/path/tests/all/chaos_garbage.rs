//! Garbage on every port and socket: refused, without growth in memory, and the region works on.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use nova_path::process::{self, Listener};

use super::rig::{Rig, Tree};

/// Connections to each port and socket, per round.
const CONNECTIONS: usize = 200;
/// Of these so many stay open, half a message in, until the round is over.
const HELD_OPEN: usize = 20;
/// What a process may have more after the later rounds than after the first, which fills its caches.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
/// What a process may have more than before any garbage.
const GROWTH_BYTES_MAX_IN_ALL: u64 = 48 << 20;
/// How long one connection is kept busy.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// Memory of closed connections is given back within this time.
const SETTLE: Duration = Duration::from_secs(2);

/// Both kinds of stream, as one.
trait Line: Write {}
impl<T: Write> Line for T {}

fn connect(to: &Listener) -> io::Result<Box<dyn Line>> {
    Ok(match to {
        Listener::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, Duration::from_secs(1))?;
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            Box::new(stream)
        }
        Listener::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            Box::new(stream)
        }
    })
}

/// Something no peer of ours would send.
fn garbage(kind: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut noise = vec![0; 16 << 10];
    random.fill(&mut noise);
    match kind % 8 {
        0 => noise,
        // The first half of a frame header.
        1 => vec![0x4e, 0x42, 1, 0, 0, 0, 0],
        // Frames that claim 4 GiB, and 1 MiB with a wrong checksum.
        2 => [&[0x4e, 0x42, 1, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], &noise[..]].concat(),
        3 => [&[0x4e, 0x42, 1, 0x80, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4], &noise[..]].concat(),
        // Lengths of little-endian and of big-endian protocols, all ones.
        4 => vec![0xff; 4096],
        5 => vec![0; 64 << 10],
        // A TLS record that claims 16 KiB, and HTTP/2 without TLS.
        6 => [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3], &noise[..100]].concat(),
        _ => [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff".as_slice(), &noise[..100]].concat(),
    }
}

/// Sends a round of garbage to one listener; gives some connections that are still open.
fn bombard(listener: &Listener, seed: u64) -> Vec<Box<dyn Line>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut held = Vec::new();
    let mut connected = 0;
    for index in 0..CONNECTIONS {
        // Being refused is what we want, at whatever step it happens.
        let Ok(mut line) = connect(listener) else { continue };
        connected += 1;
        let bytes = garbage(index, &mut random);
        let sent = line.write_all(&bytes);
        if sent.is_ok() && held.len() < HELD_OPEN {
            held.push(line);
        }
    }
    assert!(connected > 0, "{listener:?} took no connection at all");
    held
}

fn memory(processes: &[(String, i32)]) -> BTreeMap<String, u64> {
    let own = |(name, pid): &(String, i32)| (name.clone(), process::own_memory(*pid).unwrap());
    processes.iter().map(own).collect()
}

#[test]
fn garbage_on_every_port_is_refused_without_growth() {
    let mut rig = Rig::start("garbage", 512);
    let tree = Tree::make(rig.local("source"), 24, 1_000_000, 1);
    tree.put(rig.nova(), "/before").success().unwrap();

    let processes = rig.region.refresh().unwrap().processes();
    let listeners: Vec<Listener> =
        processes.iter().flat_map(|(_, pid)| process::listeners(*pid).unwrap()).collect();
    let sockets = listeners.iter().filter(|one| matches!(one, Listener::Unix(_))).count();
    // Three controllers and four data planes listen on TCP; four agents and four data planes on Unix sockets.
    assert!(listeners.len() - sockets >= 7 && sockets >= 4, "{listeners:#?}");

    let before = memory(&processes);
    let mut after_first = BTreeMap::new();
    for round in 0..3 {
        let held: Vec<_> = listeners.iter().map(|listener| bombard(listener, round)).collect();
        // While half-open connections are there, the region serves.
        tree.put(rig.nova(), &format!("/during/{round}")).success().unwrap();
        drop(held);
        thread::sleep(SETTLE);
        if round == 0 {
            after_first = memory(&processes);
        }
    }
    let after = memory(&processes);
    for (name, pid) in &processes {
        assert!(process::is_alive(*pid), "{name} ended");
        let grown = after[name].saturating_sub(after_first[name]);
        assert!(
            grown <= GROWTH_BYTES_MAX,
            "{name} grew by {grown} bytes: {before:?} {after_first:?} {after:?}"
        );
        let in_all = after[name].saturating_sub(before[name]);
        assert!(in_all <= GROWTH_BYTES_MAX_IN_ALL, "{name} grew by {in_all} bytes: {before:?} {after:?}");
    }
    for folder in ["/before", "/during/0", "/during/2"] {
        rig.assert_intact(folder, &tree);
    }
    rig.region.down().unwrap();
}
