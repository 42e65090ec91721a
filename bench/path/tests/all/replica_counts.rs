//! Namespaces that keep two, three and five copies, on five storage hosts of which one dies.

use std::collections::BTreeSet;
use std::time::Duration;

use nova_path::answer::{Located, LocatedUnit};
use nova_path::nova::Finished;
use nova_path::region::Size;

use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

const STORAGE: u32 = 5;
const DEVICE_MIB: u64 = 512;
/// Namespaces and the copies of their files.
const KEPT: [(&str, usize); 3] = [("scratch", 2), ("hot", 3), ("cold", 5)];
/// A group of two that lost a host has another within this: 30 s until that host counts as failed, and the filling.
const REPLACED_WITHIN: Duration = Duration::from_secs(90);

fn set_replicas(rig: &Rig, namespace: &str, count: usize) -> Finished {
    rig.nova().call(["fs", "space", "--replicas", &count.to_string(), namespace]).finish().unwrap()
}

fn units_of(rig: &Rig, path: &str) -> Vec<LocatedUnit> {
    rig.nova().call(["fs", "locate", path]).answer::<Located>().unwrap().units
}

fn hosts_of(unit: &LocatedUnit) -> BTreeSet<&str> {
    unit.replicas.iter().map(|replica| replica.host.as_str()).collect()
}

#[test]
fn each_namespace_keeps_its_number_of_copies_and_a_host_that_dies_takes_no_file_of_any() {
    let mut rig = Rig::start_of("replica_counts", Size { storage: STORAGE, ..Size::standard(DEVICE_MIB) });
    for wrong in [1, 6] {
        let refused = set_replicas(&rig, "hot", wrong);
        assert!(refused.code != Some(0) && refused.to_string().contains("2 to 5 copies"), "{refused}");
    }
    let refused = set_replicas(&rig, "nowhere", 2);
    assert!(refused.code != Some(0), "{refused}");
    let sources = rig.local("sources");
    let mut trees = Vec::new();
    for (index, (namespace, count)) in KEPT.into_iter().enumerate() {
        set_replicas(&rig, namespace, count).success().unwrap();
        let tree = Tree::make(sources.join(namespace), 16, 3 << 20, index as u64);
        // At once: the put waits until the groups are made.
        tree.put(rig.nova(), &format!("/{namespace}/first")).success().unwrap();
        rig.region.wait_whole(count, IN_SYNC_TIMEOUT).unwrap();
        let units = units_of(&rig, &format!("/{namespace}/first/{}", tree.names[0]));
        assert!(!units.is_empty());
        for unit in &units {
            assert_eq!((unit.replicas_wanted, hosts_of(unit).len()), (count, count), "{namespace}: {unit:?}");
        }
        trees.push(tree);
    }
    let of_two = units_of(&rig, &format!("/scratch/first/{}", trees[0].names[0]));
    let victim = of_two[0].replicas[0].host.clone();
    rig.region.kill(&victim).unwrap();
    for ((namespace, _), tree) in KEPT.iter().zip(&trees) {
        rig.assert_intact(&format!("/{namespace}/first"), tree);
    }
    // Groups of two go on with another host; those of five have none left, and go on with four members.
    let took = rig.region.wait_whole(2, REPLACED_WITHIN).unwrap();
    println!("groups of two were whole again {took:?} after everything was read");
    for ((namespace, _), tree) in KEPT.iter().zip(&trees) {
        tree.put(rig.nova(), &format!("/{namespace}/second")).success().unwrap();
    }
    for unit in units_of(&rig, &format!("/cold/second/{}", trees[2].names[0])) {
        assert_eq!((unit.replicas_wanted, hosts_of(&unit).len()), (5, 4), "{unit:?}");
    }
    rig.region.restart(&victim).unwrap();
    for (_, count) in KEPT {
        rig.region.wait_whole(count, IN_SYNC_TIMEOUT).unwrap();
    }
    for ((namespace, count), tree) in KEPT.iter().zip(&trees) {
        for folder in ["first", "second"] {
            rig.assert_intact(&format!("/{namespace}/{folder}"), tree);
            let units = units_of(&rig, &format!("/{namespace}/{folder}/{}", tree.names[0]));
            assert!(units.iter().all(|unit| hosts_of(unit).len() == *count), "{namespace}: {units:?}");
        }
    }
    rig.assert_no_findings();
    rig.region.down().unwrap();
}
