//! A host with several devices, some of which are lost.

use std::fs;
use std::path::Path;

use nova_ring::abi::AgentEvent;

use super::kit::{Novad, folder};

pub(crate) fn device(path: &Path, create_mib: Option<u64>) -> String {
    let create = create_mib.map_or_else(String::new, |mib| format!("create_mib = {mib}\n"));
    format!("[[device]]\npath = {path:?}\n{create}")
}

#[test]
fn a_missing_and_a_damaged_device_are_reported_and_the_others_serve() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("damaged"), vec![0xA5; 1 << 20]).unwrap();
    let devices = [
        device(&path("first"), Some(256)),
        device(&path("missing"), None),
        device(&path("damaged"), None),
        device(&path("last"), Some(256)),
    ];
    let novad = Novad::start_with(folder, &devices.concat()).unwrap_or_else(|log| panic!("{log}"));
    let mounted: Vec<_> = novad
        .said
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Mounted { device, mount_counter, bytes_total, place, .. } => {
                Some((*place, *device, *mount_counter, *bytes_total > 0))
            }
            _ => None,
        })
        .collect();
    let places: Vec<u8> = mounted.iter().map(|(place, ..)| *place).collect();
    assert_eq!(places, [0, 3]);
    assert!(mounted.iter().all(|(_, _, counter, room)| *counter == 1 && *room), "{mounted:?}");
    assert_ne!(mounted[0].1, mounted[1].1, "each has an id of its own");
    let broken: Vec<u8> = novad
        .said
        .iter()
        .filter_map(|event| match event {
            AgentEvent::DeviceBroken { place } => Some(*place),
            _ => None,
        })
        .collect();
    assert_eq!(broken, [1, 2]);
    assert!(novad.said.contains(&AgentEvent::DevicesTold { mounted: 2, broken: 2 }));
    novad.stop();
}

#[test]
fn a_start_on_which_no_device_serves_ends_and_says_why() {
    let folder = folder();
    let damaged = folder.path().join("damaged");
    fs::write(&damaged, vec![0xA5; 1 << 20]).unwrap();
    let devices = [device(&folder.path().join("missing"), None), device(&damaged, None)];
    let Err(log) = Novad::start_with(folder, &devices.concat()) else {
        panic!("it serves, and has nothing to serve from");
    };
    assert!(log.contains("missing") && log.contains("a device does not serve"), "{log}");
}

#[test]
fn a_copy_of_a_device_does_not_serve_beside_it() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (original, copy) = (path("original"), path("copy"));
    let first =
        Novad::start_with(folder, &device(&original, Some(256))).unwrap_or_else(|log| panic!("{log}"));
    let folder = first.stop();
    fs::copy(&original, &copy).unwrap();
    for name in ["novad.sock", "region.key"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    let devices = [device(&original, None), device(&copy, None)];
    let both = Novad::start_with(folder, &devices.concat()).unwrap_or_else(|log| panic!("{log}"));
    assert!(both.said.contains(&AgentEvent::DeviceBroken { place: 1 }), "{:?}", both.said);
    assert!(both.said.contains(&AgentEvent::DevicesTold { mounted: 1, broken: 1 }));
    both.stop();
}
