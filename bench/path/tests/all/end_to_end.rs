//! The flow without faults, and the demo with all of them.

use std::process::Command;

use nova_path::answer;

use super::rig::{Rig, Tree, bins};

#[test]
fn a_tree_put_is_read_back_identical() {
    let rig = Rig::start("a_tree_put_is_read_back_identical", 512);
    let tree = Tree::make(rig.local("source"), 60, 3_000_000, 1);
    let put: answer::Put = tree.put(rig.nova(), "/hot/tree").success().unwrap().answer().unwrap();
    assert_eq!((put.files, put.bytes), (60, tree.bytes));
    rig.assert_intact("/hot/tree", &tree);

    let usage: answer::Usage = rig.nova().call(["fs", "du", "/hot"]).answer().unwrap();
    assert_eq!((usage.files, usage.bytes), (60, tree.bytes));
    let path = format!("/hot/tree/{}", tree.names[0]);
    let located: answer::Located = rig.nova().call(["fs", "locate", &path]).answer().unwrap();
    assert_eq!(located.units.len(), 3_000_000_usize.div_ceil(64 << 10));
    for unit in &located.units {
        let mut hosts: Vec<_> = unit.replicas.iter().map(|replica| replica.host.as_str()).collect();
        hosts.sort_unstable();
        assert_eq!(hosts, ["storage-1", "storage-2", "storage-3"]);
    }

    rig.nova().call(["fs", "mv", "/hot/tree", "/hot/moved"]).run().unwrap();
    rig.assert_intact("/hot/moved", &tree);
    rig.nova().call(["fs", "rm", "-r", "/hot/moved"]).run().unwrap();
    assert_eq!(rig.nova().call(["fs", "ls", "/hot/moved"]).finish().unwrap().code, Some(3));
    rig.region.down().unwrap();
}

/// The demo in small: the same program that `scripts/demo` runs.
#[test]
fn chaos_the_demo_holds_on_a_small_tree() {
    let folder = tempfile::Builder::new().prefix("nova-demo-").tempdir_in("/var/tmp").unwrap();
    let source = folder.path().join("source");
    let work = folder.path().join("work");
    Tree::make(source.clone(), 400, 500_000, 2);
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args([
            source.as_os_str(),
            "--folder".as_ref(),
            work.as_os_str(),
            "--bins".as_ref(),
            bins().as_os_str(),
        ])
        .output()
        .unwrap();
    let [said, complained] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("everything held"), "{said}");
    assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0, "nothing stays behind");
}
