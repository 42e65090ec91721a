//! Keys of a real region: rotated, kept over a restart of everything, erased, and taken over from an earlier release.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nova_path::nova::Nova;
use serde::Deserialize;

use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

/// A region goes down or comes up within this time.
const REGION_TIMEOUT: Duration = Duration::from_secs(180);
/// A dropped key is forgotten by a host in touch with the controllers within this time.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);
/// The controllers make the default domain, or take the old key over, within this time.
const KEPT_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
struct Keys {
    domains: Vec<Domain>,
}

#[derive(Debug, Deserialize)]
struct Domain {
    domain: u32,
    name: String,
    state: String,
    versions: Vec<Version>,
}

#[derive(Debug, Deserialize)]
struct Version {
    version: u32,
    state: String,
}

#[derive(Debug, Deserialize)]
struct Change {
    domain: u32,
    version: u32,
}

#[derive(Debug, Deserialize)]
struct Located {
    units: Vec<Unit>,
}

#[derive(Debug, Deserialize)]
struct Unit {
    key_domain: u32,
    key_version: u32,
}

fn keys(nova: &Nova) -> Vec<Domain> {
    nova.call(["key", "ls"]).answer::<Keys>().unwrap().domains
}

/// Waits for the default domain.
fn wait_default(nova: &Nova) {
    let begun = Instant::now();
    while keys(nova).is_empty() {
        assert!(begun.elapsed() < KEPT_WITHIN, "no default domain");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Domain and version that the first unit of a file is sealed under.
fn sealed_under(nova: &Nova, path: &str) -> (u32, u32) {
    let located: Located = nova.call(["fs", "locate", path]).answer().unwrap();
    let keys: Vec<_> = located.units.iter().map(|unit| (unit.key_domain, unit.key_version)).collect();
    assert!(!keys.is_empty() && keys.iter().all(|key| *key == keys[0]), "{path}: {keys:?}");
    keys[0]
}

fn restart_everything(rig: &mut Rig) {
    rig.nova().call(["dev", "down"]).limit(REGION_TIMEOUT).shielded().run().unwrap();
    rig.nova().call(["dev", "up"]).limit(REGION_TIMEOUT).shielded().run().unwrap();
    rig.region.refresh().unwrap();
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
}

/// The first name of the tree has large content.
fn first_of(folder: &str, tree: &Tree) -> String {
    format!("{folder}/{}", tree.names[0])
}

#[test]
fn a_key_is_rotated_survives_a_restart_of_everything_and_is_erased() {
    let mut rig = Rig::start("keys", 1024);
    wait_default(rig.nova());
    let sources = rig.local("sources");
    let made: Change = rig.nova().call(["key", "create", "secret"]).answer().unwrap();
    assert_eq!((made.domain, made.version), (2, 1));
    rig.nova().call(["fs", "mkdir", "/secret"]).run().unwrap();
    let unknown = rig.nova().call(["fs", "space", "--key-domain", "9", "secret"]).finish().unwrap();
    assert!(unknown.code != Some(0) && unknown.stderr.contains("nova key create"), "{unknown}");
    rig.nova().call(["fs", "space", "--key-domain", "2", "secret"]).run().unwrap();
    let tree = |name: &str, seed| Tree::make(sources.join(name), 16, 3_000_000, seed);
    let (old, new, kept) = (tree("old", 1), tree("new", 2), tree("kept", 3));
    assert_eq!(old.put(rig.nova(), "/secret/old").code, Some(0));
    assert_eq!(kept.put(rig.nova(), "/hot/kept").code, Some(0));
    assert_eq!(sealed_under(rig.nova(), &first_of("/secret/old", &old)), (2, 1));
    assert_eq!(sealed_under(rig.nova(), &first_of("/hot/kept", &kept)), (1, 1));

    let rotated: Change = rig.nova().call(["key", "rotate", "secret"]).answer().unwrap();
    assert_eq!((rotated.domain, rotated.version), (2, 2));
    assert_eq!(new.put(rig.nova(), "/secret/new").code, Some(0));
    assert_eq!(sealed_under(rig.nova(), &first_of("/secret/new", &new)), (2, 2));
    rig.assert_intact("/secret/old", &old);
    rig.assert_intact("/secret/new", &new);

    restart_everything(&mut rig);
    rig.assert_intact("/secret/old", &old);
    rig.assert_intact("/secret/new", &new);
    let states: Vec<_> =
        keys(rig.nova()).remove(1).versions.into_iter().map(|it| (it.version, it.state)).collect();
    assert_eq!(states, [(1, "readable".to_owned()), (2, "current".to_owned())]);

    // A file does not move to other keys, and is copied.
    let moved =
        rig.nova().call(["fs", "mv", &first_of("/hot/kept", &kept), "/secret/moved"]).finish().unwrap();
    assert!(moved.code != Some(0) && moved.stderr.contains("nova fs cp"), "{moved}");
    rig.nova().call(["fs", "cp", &first_of("/hot/kept", &kept), "/secret/copied"]).run().unwrap();
    assert_eq!(sealed_under(rig.nova(), "/secret/copied"), (2, 2));

    let unsure = rig.nova().call(["key", "drop", "secret"]).finish().unwrap();
    assert!(unsure.code == Some(2) && unsure.stderr.contains("/secret"), "{unsure}");
    rig.assert_intact("/secret/old", &old);
    rig.nova().call(["key", "drop", "secret", "--yes"]).run().unwrap();
    let copy = rig.local("copy");
    let read = |rig: &Rig| {
        rig.nova()
            .call(["fs", "get", &first_of("/secret/old", &old), copy.to_str().unwrap()])
            .finish()
            .unwrap()
    };
    let begun = Instant::now();
    let refused = loop {
        let found = read(&rig);
        if found.code != Some(0) {
            break found;
        }
        fs::remove_dir_all(&copy).unwrap();
        fs::create_dir_all(&copy).unwrap();
        assert!(begun.elapsed() < FORGOTTEN_WITHIN, "an erased file is still read");
    };
    eprintln!("keys: the edge refused {:?} after the drop", begun.elapsed());
    assert!(refused.stderr.contains("erased"), "{refused}");
    assert!(new.put(rig.nova(), "/secret/more").code != Some(0), "nothing is sealed under a dropped key");
    restart_everything(&mut rig);
    let refused = read(&rig);
    assert!(refused.code != Some(0) && refused.stderr.contains("erased"), "{refused}");
    rig.assert_intact("/hot/kept", &kept);
    let dropped = keys(rig.nova()).remove(1);
    assert_eq!((dropped.state.as_str(), dropped.versions.len(), dropped.domain), ("dropped", 0, 2));
    rig.region.down().unwrap();
}

/// Changes a configuration line by line.
fn edit(path: &Path, change: impl Fn(&str) -> Option<String>) {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<String> = text.lines().filter_map(change).collect();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn configs(folder: &Path, file: &str) -> Vec<PathBuf> {
    let homes = fs::read_dir(folder).unwrap().map(|home| home.unwrap().path().join(file));
    homes.filter(|path| path.exists()).collect()
}

#[test]
fn a_region_with_a_region_key_is_taken_over_and_stays_readable() {
    let mut rig = Rig::start("keys_upgrade", 512);
    let folder = rig.nova().region().to_owned();
    rig.nova().call(["dev", "down"]).limit(REGION_TIMEOUT).shielded().run().unwrap();
    // As an earlier release left it: a key file at every host, no key service, no state of one.
    let old = folder.join("earlier.key");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&old).unwrap();
    std::io::Write::write_all(
        &mut &file,
        format!("novaclustr-region-key-1 1 1 {}\n", "5a".repeat(32)).as_bytes(),
    )
    .unwrap();
    fs::remove_file(folder.join("root.key")).unwrap();
    for path in configs(&folder, "novad.toml") {
        let with = format!("region_key = {:?}", old.to_str().unwrap());
        edit(&path, |line| Some(if line == "edge = true" { with.clone() } else { line.to_owned() }));
    }
    for path in configs(&folder, "control.toml") {
        edit(&path, |line| {
            (!line.starts_with("[keys]") && !line.starts_with("root =")).then(|| line.to_owned())
        });
        fs::remove_dir_all(path.with_file_name("data")).unwrap();
    }
    for device in configs(&folder, "device.nova") {
        fs::remove_file(device).unwrap();
    }
    rig.nova().call(["dev", "up"]).limit(REGION_TIMEOUT).shielded().run().unwrap();
    rig.region.refresh().unwrap();
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    assert!(keys(rig.nova()).is_empty(), "there is no key service");
    let before = Tree::make(rig.local("sources").join("before"), 16, 2_000_000, 5);
    assert_eq!(before.put(rig.nova(), "/hot/before").code, Some(0));
    rig.assert_intact("/hot/before", &before);

    // The new release finds the file where the earlier one had it.
    rig.nova().call(["dev", "down"]).limit(REGION_TIMEOUT).shielded().run().unwrap();
    fs::rename(&old, folder.join("region.key")).unwrap();
    rig.nova().call(["dev", "up"]).limit(REGION_TIMEOUT).shielded().run().unwrap();
    rig.region.refresh().unwrap();
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    wait_default(rig.nova());
    fs::remove_file(folder.join("region.key")).unwrap();
    rig.assert_intact("/hot/before", &before);
    rig.nova().call(["key", "rotate", "default"]).run().unwrap();
    let after = Tree::make(rig.local("sources").join("after"), 16, 2_000_000, 6);
    assert_eq!(after.put(rig.nova(), "/hot/after").code, Some(0));
    assert_eq!(sealed_under(rig.nova(), &first_of("/hot/before", &before)), (1, 1));
    assert_eq!(sealed_under(rig.nova(), &first_of("/hot/after", &after)), (1, 2));
    restart_everything(&mut rig);
    rig.assert_intact("/hot/before", &before);
    rig.assert_intact("/hot/after", &after);
    let default = keys(rig.nova()).remove(0);
    assert_eq!((default.name.as_str(), default.versions.len()), ("default", 2));
    rig.region.down().unwrap();
}
