//! Devices are opened and closed while a `novad` runs, and what it says of each.

use std::fs;
use std::path::Path;

use nova_buf::{HugePages, PoolOptions};
use nova_device::uring::{CreateOptions, create_disk};
use nova_ring::abi::{AgentCommand, AgentEvent};
use nova_shard::{ShardOptions, run};
use nova_units::{DeviceId, DiskIndex, Incarnation};
use novafs_store::{FormatOptions, OpenOptions, Store};

use super::devices::device;
use super::kit::{Novad, folder};

/// Gives novad other devices.
fn configure(novad: &Novad, devices: &[String]) {
    let path = novad.path("novad.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (before, _) = text.split_once("[[device]]").unwrap();
    fs::write(&path, format!("{before}{}", devices.concat())).unwrap();
}

/// Places with the devices that are open there, and places with why nothing is.
type Told = (Vec<(u8, DeviceId)>, Vec<(u8, String)>);

/// What novad tells of its devices once it has carried out an order: places and ids of those that are open, and why not of
/// the others.
fn after(novad: &mut Novad, order: u64) -> Told {
    novad.wait_for(|event| *event == AgentEvent::DevicesOrdered { order });
    novad.wait_for(|event| matches!(event, AgentEvent::DevicesTold { .. }));
    // The last list that was told.
    let ends: Vec<usize> = (0..novad.said.len())
        .filter(|index| matches!(novad.said[*index], AgentEvent::DevicesTold { .. }))
        .collect();
    let (mut open, mut troubles) = (Vec::new(), Vec::<(u8, String)>::new());
    for event in &novad.said[ends[ends.len() - 2] + 1..] {
        match event {
            AgentEvent::Mounted { place, device, .. } => open.push((*place, *device)),
            AgentEvent::DeviceTrouble { place, words } => match troubles.last_mut() {
                Some((last, why)) if last == place => why.push_str(words.as_str()),
                _ => troubles.push((*place, words.as_str().to_owned())),
            },
            _ => {}
        }
    }
    (open, troubles)
}

fn open(novad: &mut Novad, order: u64) -> Told {
    novad.tell(AgentCommand::OpenDevices { order });
    after(novad, order)
}

/// The ids of the devices that were mounted at the start.
fn mounted(novad: &Novad) -> Vec<DeviceId> {
    let mounted = |event: &AgentEvent| match event {
        AgentEvent::Mounted { device, .. } => Some(*device),
        _ => None,
    };
    novad.said.iter().filter_map(mounted).collect()
}

fn start(folder: tempfile::TempDir, shards: u16, devices: &[String]) -> Novad {
    Novad::start_at(folder, "127.0.0.1:0", shards, &devices.concat()).unwrap_or_else(|log| panic!("{log}"))
}

#[test]
fn what_is_in_the_configuration_and_not_open_is_opened_by_its_shard() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (first, second) = (device(&path("first"), Some(256)), device(&path("second"), None));
    let third = device(&path("third"), Some(256));
    let mut novad = start(folder, 2, &[first.clone(), second.clone()]);
    let ids = mounted(&novad);
    let (before, troubles) = open(&mut novad, 7);
    assert_eq!((before.len(), before[0]), (1, (0, ids[0])));
    assert!(troubles[0].0 == 1 && troubles[0].1.contains("create_mib"), "{troubles:?}");

    // The missing one is there, and another stands behind it.
    let second = second + "create_mib = 256\n";
    configure(&novad, &[first, second, third]);
    let (now, troubles) = open(&mut novad, 8);
    assert_eq!((now.iter().map(|it| it.0).collect::<Vec<_>>(), troubles), (vec![0, 1, 2], vec![]));
    assert_eq!(now[0], before[0], "what was open is not opened again");
    let log = novad.terminate();
    assert!(log.contains("place=1 shard=1") && log.contains("place=2 shard=0"), "{log}");
}

#[test]
fn a_device_is_closed_and_whoever_opens_it_next_has_it() {
    let folder = folder();
    let path = folder.path().join("second");
    let devices = [device(&folder.path().join("first"), Some(256)), device(&path, Some(256))];
    let mut novad = start(folder, 2, &devices);
    let ids = mounted(&novad);
    let locked = |path: &Path| {
        let file = fs::File::open(path).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
    };
    assert!(locked(&path));
    novad.tell(AgentCommand::CloseDevice { order: 7, device: ids[1] });
    assert_eq!(after(&mut novad, 7), (vec![(0, ids[0])], vec![]));
    assert!(!locked(&path), "its drive can be pulled");
    novad.tell(AgentCommand::CloseDevice { order: 8, device: ids[1] });
    assert_eq!(after(&mut novad, 8), (vec![(0, ids[0])], vec![]), "twice is once");
    assert_eq!(open(&mut novad, 9), (vec![(0, ids[0]), (1, ids[1])], vec![]));
    assert!(locked(&path));
    // The last one, too: the host has no device then.
    for (order, id) in [(10, ids[0]), (11, ids[1])] {
        novad.tell(AgentCommand::CloseDevice { order, device: id });
        after(&mut novad, order);
    }
    assert_eq!(open(&mut novad, 12).0.len(), 2);
    novad.stop();
}

/// A device that is in the life `life` of some region; answers its id.
fn lived(path: &Path, life: u64) -> DeviceId {
    create_disk(path, CreateOptions { bytes: 64 << 20 }, |_| {}).unwrap();
    let options = ShardOptions {
        disks: vec![path.to_owned()],
        pool: PoolOptions { bytes: 16 << 20, huge: HugePages::Never },
        ..ShardOptions::default()
    };
    let id = DeviceId(u128::from(life) << 64 | 9);
    run(options, async |shard| {
        Store::format(&shard, DiskIndex(0), FormatOptions::new(id)).await.unwrap();
        let opened = Store::open(shard.clone(), DiskIndex(0), OpenOptions::default()).await.unwrap();
        opened.store.set_incarnation(Incarnation(life)).await.unwrap();
        opened.store.close().await.unwrap();
    })
    .unwrap();
    id
}

#[test]
fn what_cannot_be_opened_is_said_and_left_as_it_is() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let first = device(&path("first"), Some(256));
    let mut novad = start(folder, 1, std::slice::from_ref(&first));
    let [small, garbage, copy, lent, new] =
        ["small", "garbage", "copy", "lent", "new"].map(|name| novad.path(name));
    fs::write(&small, vec![0; 1 << 20]).unwrap();
    fs::write(&garbage, vec![0xA5; 1 << 20]).unwrap();
    fs::copy(novad.path("first"), &copy).unwrap();
    let id = lived(&lent, 5);
    let paths = [&small, &garbage, &copy, &lent].map(|path| device(path, None));
    configure(&novad, &[&[first.clone()][..], &paths].concat());
    // Somebody else has it.
    let taken = fs::File::open(&lent).unwrap();
    rustix::fs::flock(&taken, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let (opened, troubles) = open(&mut novad, 7);
    assert_eq!(opened.iter().map(|it| it.0).collect::<Vec<_>>(), [0]);
    let wanted = [(1, "16 MiB"), (2, "superblock"), (3, "copy of another device"), (4, "in use")];
    assert_eq!(troubles.len(), wanted.len(), "{troubles:?}");
    for ((place, why), (at, words)) in troubles.iter().zip(wanted) {
        assert!(*place == at && why.contains(words), "{place}: {why}");
    }
    drop(taken);
    assert_eq!(fs::read(&garbage).unwrap(), vec![0xA5; 1 << 20]);

    // One that is in use elsewhere, and one that failed, by what the controllers know.
    let before = fs::read(&lent).unwrap();
    let last = |novad: &mut Novad, order| open(novad, order).1.pop().unwrap().1;
    assert!(last(&mut novad, 8).contains("another host or region"));
    novad.tell(AgentCommand::ExpectDevice { device: id, failed: true });
    assert!(last(&mut novad, 9).contains("never trusted again"));
    assert!(fs::read(&lent).unwrap() == before, "not a byte of it was changed");
    novad.tell(AgentCommand::ExpectDevice { device: id, failed: false });
    assert!(open(&mut novad, 10).0.contains(&(4, id)), "it is its own");

    // A configuration that cannot be used changes nothing.
    configure(&novad, &[device(&new, Some(256)), first]);
    let (same, troubles) = open(&mut novad, 11);
    assert_eq!(same.len(), 2);
    let (place, why) = troubles.last().unwrap();
    assert!(*place == u8::MAX && why.contains("is open there"), "{troubles:?}");
    assert!(!new.exists());
    novad.stop();
}
