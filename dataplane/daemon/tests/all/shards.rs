//! A `novad` with two shards: one host for its agent and its programs, whatever shard drives what.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use nova_ring::abi::AgentEvent;

use super::devices::device;
use super::hostile_program::ask;
use super::kit::{Novad, folder};

/// Any port, for each of them.
const ANY: &str = "127.0.0.1:0";

fn start(folder: tempfile::TempDir, devices: &[String]) -> Result<Novad, String> {
    Novad::start_at(folder, ANY, 2, &devices.concat())
}

/// Places of the devices that it said to have mounted, and of those that it has not.
fn places(novad: &Novad) -> (Vec<u8>, Vec<u8>) {
    let said = || novad.said.iter();
    let mounted = said().filter_map(|event| match event {
        AgentEvent::Mounted { place, .. } => Some(*place),
        _ => None,
    });
    let broken = said().filter_map(|event| match event {
        AgentEvent::DeviceBroken { place } => Some(*place),
        _ => None,
    });
    (mounted.collect(), broken.collect())
}

#[test]
fn the_devices_of_all_shards_are_told_at_once_and_programs_of_all_shards_are_served() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let devices = [
        device(&path("first"), Some(256)),
        device(&path("second"), Some(256)),
        device(&path("third"), Some(256)),
        device(&path("missing"), None),
    ];
    let mut novad = start(folder, &devices).unwrap_or_else(|log| panic!("{log}"));
    assert_eq!(places(&novad), (vec![0, 1, 2], vec![3]));
    assert!(novad.said.contains(&AgentEvent::DevicesTold { mounted: 3, broken: 1 }));
    let log = novad.log();
    for told in ["one/0: devices at places [0, 2]", "one/1: devices at places [1, 3]", "one/1: io_uring"] {
        assert!(log.contains(told), "{told:?} is not in {log}");
    }
    let mut programs: Vec<_> = (0..4).map(|_| novad.program()).collect();
    for (request, program) in (0..).zip(&mut programs) {
        ask(program, request);
    }
    drop(programs);
    let log = novad.terminate();
    for shard in ["shard=0", "shard=1"] {
        assert!(log.contains(shard) && log.contains("novad ends"), "{log}");
    }
}

#[test]
fn a_copy_of_a_device_on_another_shard_does_not_serve_beside_it() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (original, copy) = (path("original"), path("copy"));
    let first = start(folder, &[device(&original, Some(256))]).unwrap_or_else(|log| panic!("{log}"));
    let folder = first.stop();
    fs::copy(&original, &copy).unwrap();
    for name in ["novad.sock", "region.key"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    let both =
        start(folder, &[device(&original, None), device(&copy, None)]).unwrap_or_else(|log| panic!("{log}"));
    assert_eq!(places(&both), (vec![0], vec![1]));
    both.stop();
}

#[test]
fn a_start_on_which_no_device_of_any_shard_serves_ends_and_says_why() {
    let folder = folder();
    let missing = ["first", "second"].map(|name| device(&folder.path().join(name), None));
    let Err(log) = start(folder, &missing) else { panic!("it serves, and has nothing to serve from") };
    assert!(log.contains("a device does not serve") && log.contains("novad: "), "{log}");
}

#[test]
fn a_start_ends_when_the_port_of_the_second_shard_is_taken_and_names_it() {
    // Two ports in a row, the second of which is ours.
    let (listen, taken) = loop {
        let first = TcpListener::bind(ANY).unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(taken) = TcpListener::bind(("127.0.0.1", port.wrapping_add(1))) {
            break (format!("127.0.0.1:{port}"), taken);
        }
    };
    let Err(log) = Novad::start_at(folder(), &listen, 2, "") else { panic!("it has half its shards") };
    let address = taken.local_addr().unwrap().to_string();
    assert!(log.contains("start shard 1") && log.contains(&address), "{log}");
    let lines: BTreeSet<_> = log.lines().filter(|line| line.starts_with("novad: ")).collect();
    assert_eq!(lines.len(), 1, "one reason is given: {log}");
}
