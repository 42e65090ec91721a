//! The key service has lost its root key: what hosts hold goes on, nothing is given out, and stored data need no key.

use std::fs;
use std::time::{Duration, Instant};

use nova_path::answer::Health;
use nova_path::region::Size;

use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

const CONTROLLERS: [&str; 3] = ["controller-1", "controller-2", "controller-3"];
/// The default domain is made, and the scrub goes over a small device, within this time.
const SOON: Duration = Duration::from_secs(40);

fn passes(rig: &Rig) -> u64 {
    let health: Health = rig.nova().call(["fs", "health"]).finish().unwrap().answer().unwrap();
    assert!(!health.at_risk, "{health:?}");
    health.hosts.iter().map(|host| host.passes).min().unwrap()
}

/// Gives all controllers another root key file, and starts them again one by one.
fn give_root(rig: &mut Rig, text: &str) {
    fs::write(rig.nova().region().join("root.key"), text).unwrap();
    for controller in CONTROLLERS {
        rig.region.kill(controller).unwrap();
        rig.region.restart(controller).unwrap();
    }
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
}

#[test]
fn a_lost_root_key_stops_no_reads_of_who_holds_keys_gives_none_to_others_and_needs_none_to_scrub() {
    let size = Size { scrub_mib: Some(64), ..Size::standard(512) };
    let mut rig = Rig::start_of("keys_lost", size);
    let tree = Tree::make(rig.local("source"), 16, 2_000_000, 5);
    let begun = Instant::now();
    while tree.put(rig.nova(), "/hot/kept").code != Some(0) {
        assert!(begun.elapsed() < SOON, "no key for the default domain");
        std::thread::sleep(Duration::from_millis(200));
    }
    rig.assert_intact("/hot/kept", &tree);
    let root = fs::read_to_string(rig.nova().region().join("root.key")).unwrap();
    // Another id and other bits: a root key of some other region.
    let (header, rest) = root.split_once(' ').unwrap();
    let other: String = rest.chars().map(|it| if it == '0' { 'f' } else { it }).collect();
    assert_ne!(rest, other);
    give_root(&mut rig, &format!("{header} {other}"));

    rig.assert_intact("/hot/kept", &tree);
    let before = passes(&rig);
    let begun = Instant::now();
    while passes(&rig) < before + 2 {
        assert!(begun.elapsed() < SOON, "the scrub does not go on");
        std::thread::sleep(Duration::from_millis(500));
    }

    // A new start of the edge holds nothing, and gets nothing.
    rig.region.kill("compute-1").unwrap();
    rig.region.restart("compute-1").unwrap();
    let copy = rig.local("copy");
    let path = format!("/hot/kept/{}", tree.names[0]);
    let read = rig.nova().call(["fs", "get", &path, copy.to_str().unwrap()]).finish().unwrap();
    assert!(read.code != Some(0) && read.stderr.contains("key"), "{read}");

    give_root(&mut rig, &root);
    let begun = Instant::now();
    while rig.nova().call(["fs", "get", &path, copy.to_str().unwrap()]).finish().unwrap().code != Some(0) {
        assert!(begun.elapsed() < SOON, "the key is there again, and nothing is read");
        std::thread::sleep(Duration::from_millis(500));
    }
    rig.assert_intact("/hot/kept", &tree);
    rig.region.down().unwrap();
}
