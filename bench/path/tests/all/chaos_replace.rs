//! A drive that fails under a running host, and others that come in its place: the host's novad runs on, and every file is
//! whole all the while.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_path::answer::Status;
use nova_path::region::Size;
use serde_json::Value;

use super::chaos_devices::{devices, wait_for_devices};
use super::faulty_disk::{FaultyDisk, Mood, cannot_make_disks};
use super::load::Load;
use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

/// The host whose drives are changed. Its second shard drives the second device.
const VICTIM: &str = "storage-2";
const PLACE: usize = 1;
/// A device is closed, opened and filled within this time.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(180);

fn start(name: &str) -> Rig {
    Rig::start_of(name, Size { devices: 2, shards: Some(2), ..Size::standard(512) })
}

fn novad(rig: &mut Rig) -> i32 {
    rig.region.refresh().unwrap().host(VICTIM).unwrap().novad_pid.unwrap()
}

fn id_at(status: &Status, place: usize) -> Option<String> {
    let devices = &status.host(VICTIM).unwrap().devices;
    devices.iter().find(|device| device.place == Some(place)).map(|device| device.device.clone())
}

fn ask(rig: &Rig, words: &[&str]) -> Value {
    let call = rig.nova().call(words).limit(REPLACE_TIMEOUT);
    call.answer().unwrap_or_else(|error| panic!("{words:?}: {error:#}"))
}

/// What a command says that does not succeed.
fn refused(rig: &Rig, words: &[&str]) -> String {
    let finished = rig.nova().call(words).limit(REPLACE_TIMEOUT).finish().unwrap();
    assert!(finished.code.is_some_and(|code| code != 0), "{words:?} succeeded: {finished}");
    finished.to_string()
}

/// Gives the device at a place of the host's configuration another path.
fn move_device(rig: &Rig, from: &Path, to: &Path) {
    let config = rig.nova().region().join(VICTIM).join("novad.toml");
    let text = fs::read_to_string(&config).unwrap();
    let (from, to) = (format!("{from:?}"), format!("{to:?}"));
    assert!(text.contains(&from), "{from} is not in {text}");
    fs::write(&config, text.replace(&from, &to)).unwrap();
}

#[test]
fn a_failed_drive_is_replaced_under_load_and_its_novad_runs_on() {
    if cannot_make_disks().is_some() {
        return;
    }
    let mut rig = start("replace_failed");
    rig.region.kill(VICTIM).unwrap();
    let path = rig.region.processes().host(VICTIM).unwrap().devices[PLACE].clone();
    let disk = FaultyDisk::take_over(&path);
    rig.region.restart(VICTIM).unwrap();
    wait_for_devices(&rig, VICTIM, &["serving", "serving"], &[]);
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    let pid = novad(&mut rig);
    let tree = Tree::make(rig.local("before"), 40, 2_500_000, 1);
    assert_eq!(tree.put(rig.nova(), "/kept/before").code, Some(0));
    let load = Load::prepare(&rig);
    let before = rig.region.status().unwrap();
    let old = id_at(&before, PLACE).unwrap();

    let other = path.with_file_name("another-drive.nova");
    let replaced = load.run(&rig, || {
        disk.set(Mood::Fails);
        let failed = wait_for_devices(&rig, VICTIM, &["serving", "failed"], &[]);
        for host in ["storage-1", "storage-3"] {
            assert_eq!(devices(&failed, host), devices(&before, host), "{host} was not touched");
        }
        // A new drive, at another path: only now the host's configuration names it.
        move_device(&rig, &path, &other);
        ask(&rig, &["node", "device", "replace", VICTIM, "1"])
    });
    assert_eq!(
        (&replaced["old"], &replaced["filled"], &replaced["forgotten"]),
        (&old.clone().into(), &true.into(), &true.into())
    );
    assert_ne!(replaced["new"], replaced["old"]);
    assert_eq!(replaced["groups"], 6, "it has its share: {replaced}");
    let after = wait_for_devices(&rig, VICTIM, &["serving", "serving"], &[]);
    assert_eq!(id_at(&after, PLACE).as_deref(), replaced["new"].as_str());
    assert!(after.all_in_sync(3), "{:?}", after.groups);
    assert_eq!(novad(&mut rig), pid, "its novad runs on");
    load.assert_kept(&rig);
    rig.assert_intact("/kept/before", &tree);
    rig.assert_no_findings();
    // What it holds is what the others hold: they may go.
    let last = Tree::make(rig.local("last"), 16, 300_000, 3);
    assert_eq!(last.put(rig.nova(), "/kept/last").code, Some(0));
    rig.region.kill("storage-1").unwrap();
    rig.assert_intact("/kept/before", &tree);
    rig.assert_intact("/kept/last", &last);
    rig.region.restart("storage-1").unwrap();
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    let log = fs::read_to_string(rig.nova().region().join(VICTIM).join("novad.log")).unwrap();
    assert!(log.contains("closed a device while this host runs"), "{log}");
    drop(disk);
}

#[test]
fn a_device_is_closed_and_opened_again_or_changed_for_an_empty_one_at_its_path() {
    let mut rig = start("replace_closed");
    let pid = novad(&mut rig);
    let path = rig.region.processes().host(VICTIM).unwrap().devices[PLACE].clone();
    let tree = Tree::make(rig.local("before"), 40, 2_500_000, 1);
    assert_eq!(tree.put(rig.nova(), "/kept/before").code, Some(0));
    let before = rig.region.status().unwrap();
    let id = id_at(&before, PLACE).unwrap();

    let closed = ask(&rig, &["node", "device", "close", VICTIM, "1"]);
    assert_eq!((&closed["device"], &closed["hangs"]), (&id.clone().into(), &false.into()));
    let away = wait_for_devices(&rig, VICTIM, &["serving", "absent"], &[]);
    for host in ["storage-1", "storage-3"] {
        assert_eq!(devices(&away, host), devices(&before, host), "{host} was not touched");
    }
    // Another process may have it now: its lock is free, and so is its drive.
    let drive = fs::File::options().read(true).write(true).open(&path).unwrap();
    rustix::fs::flock(&drive, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let said = refused(&rig, &["node", "device", "open", VICTIM]);
    assert!(said.contains("is in use"), "{said}");
    let told = rig.region.status().unwrap();
    assert!(told.notes.iter().any(|note| note.contains("is in use")), "{:?}", told.notes);
    drop(drive);
    rig.assert_intact("/kept/before", &tree);
    let missed = Tree::make(rig.local("missed"), 16, 300_000, 2);
    assert_eq!(missed.put(rig.nova(), "/kept/missed").code, Some(0));

    // It is the same device, in the same life.
    let opened = ask(&rig, &["node", "device", "open", VICTIM]);
    assert_eq!(opened["opened"][0]["device"], id);
    wait_for_devices(&rig, VICTIM, &["serving", "serving"], &[]);
    assert_eq!(ask(&rig, &["node", "device", "open", VICTIM])["opened"], Value::Array(Vec::new()));
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    rig.assert_intact("/kept/missed", &missed);

    // One that holds data of another host is left as it is.
    let foreign = rig.region.processes().host("storage-3").unwrap().devices[PLACE].clone();
    ask(&rig, &["node", "device", "close", VICTIM, &id]);
    let copy: PathBuf = path.with_file_name("foreign.nova");
    fs::copy(&foreign, &copy).unwrap();
    move_device(&rig, &path, &copy);
    let said = refused(&rig, &["node", "device", "open", VICTIM]);
    assert!(said.contains("another host or region"), "{said}");
    move_device(&rig, &copy, &path);
    assert_eq!(refused_code(&rig, &["node", "device", "close", VICTIM, "7"]), Some(3), "no such place");

    // An empty one at the same path.
    ask(&rig, &["node", "device", "open", VICTIM]);
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    fs::remove_file(&path).unwrap();
    let replaced = ask(&rig, &["node", "device", "replace", VICTIM, "1"]);
    assert_eq!((&replaced["old"], &replaced["forgotten"]), (&id.into(), &true.into()));
    assert_ne!(replaced["new"], replaced["old"]);
    assert_eq!(replaced["groups"], 6, "it has its share: {replaced}");
    assert_eq!(novad(&mut rig), pid, "its novad runs on");
    rig.assert_intact("/kept/before", &tree);
    rig.assert_intact("/kept/missed", &missed);
    rig.assert_no_findings();
    rig.region.down().unwrap();
}

fn refused_code(rig: &Rig, words: &[&str]) -> Option<i32> {
    rig.nova().call(words).finish().unwrap().code
}
