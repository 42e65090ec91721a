//! Space of removed files comes back on every host, whoever is killed meanwhile, and nothing else goes away.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

/// Space is back within this time.
const COLLECTED_WITHIN: Duration = Duration::from_secs(90);
/// Collection of removed files begins within this time.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);
/// Small files, so that their collection takes a while.
const FILES: usize = 1200;
const FILE_BYTES: usize = 4096;

/// Puts files and removes them; kills as soon as the first of their blocks is gone. What is kept stays.
fn survives(name: &str, kill: impl FnOnce(&Rig) -> String) {
    let mut rig = Rig::start(name, 1024);
    let sources = rig.local("sources");
    let kept = Tree::make(sources.join("kept"), 16, 300_000, 1);
    let gone = Tree::make(sources.join("gone"), FILES, FILE_BYTES, 2);
    assert_eq!(kept.put(rig.nova(), "/space/kept").code, Some(0));
    rig.region.wait_collected(0, COLLECTED_WITHIN).unwrap();
    let before = rig.region.status().unwrap();
    assert_eq!(gone.put(rig.nova(), "/space/gone").code, Some(0));
    let full = rig.region.status().unwrap();
    assert!(full.collection.blocks_collected == before.collection.blocks_collected);
    rig.nova().call(["fs", "rm", "-r", "/space/gone"]).run().unwrap();
    rig.nova().call(["fs", "trash", "purge", "--all"]).run().unwrap();
    let begun = Instant::now();
    // A look costs more time than the kill should wait; asked often, it is still in the middle.
    while rig.region.status().unwrap().collection.blocks_collected == before.collection.blocks_collected {
        assert!(begun.elapsed() < BEGINS_WITHIN, "nothing is collected");
        thread::sleep(Duration::from_millis(20));
    }
    let victim = kill(&rig);
    rig.region.restart(&victim).unwrap();
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    // The tree of a device grows a little; what files took comes back.
    let slack = 32 << 20;
    let free = before.bytes_free_min() - slack;
    let took = rig.region.wait_collected(free, COLLECTED_WITHIN).unwrap();
    eprintln!("{name}: space was back {took:?} after {victim} was killed");
    // A host that came back quickly may have been dropped only after it did.
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    let checked = rig.assert_no_findings();
    assert_eq!(checked.members, 36, "three copies of twelve groups");
    assert_eq!(
        checked.blocks_held,
        3 * checked.blocks_referenced,
        "kept blocks have their copies, others none"
    );
    rig.assert_intact("/space/kept", &kept);
    rig.region.down().unwrap();
}

#[test]
fn a_storage_host_killed_in_the_middle_of_a_collection_leaves_nothing_behind() {
    survives("collect_storage_host", |rig| rig.region.kill("storage-2").unwrap()[0].name.clone());
}

#[test]
fn an_agent_killed_in_the_middle_of_a_collection_leaves_nothing_behind() {
    survives("collect_agent", |rig| {
        let id = rig.region.processes().host("storage-1").unwrap().agent_pid.unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
        "storage-1".to_owned()
    });
}

#[test]
fn the_leader_of_the_hosts_killed_in_the_middle_of_a_collection_leaves_nothing_behind() {
    survives("collect_leader", |rig| {
        let leader = rig.region.status().unwrap().leader_of("cluster").unwrap();
        rig.region.kill(&format!("controller-{leader}")).unwrap()[0].name.clone()
    });
}
