//! What `nova fs` does with files that are there: copy, synchronize, change, remove and bring back.

use std::fs;

use serde_json::{Value, json};

use super::rig::Rig;

impl Rig {
    fn ask(&self, arguments: &[&str]) -> Value {
        self.nova().call(arguments).answer().unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
    }

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.nova().call(arguments).finish().unwrap().code
    }
}

#[test]
fn files_are_copied_changed_removed_and_brought_back() {
    let rig = Rig::start("commands", 512);
    let source = rig.local("tree");
    fs::create_dir_all(source.join("d/empty")).unwrap();
    fs::write(source.join("a"), "abc").unwrap();
    fs::write(source.join("d/b"), vec![7; 300_000]).unwrap();
    let (local, remote) = (source.to_str().unwrap(), "nova:/hot/tree");

    let told = rig.ask(&["fs", "sync", "--dry-run", local, remote]);
    assert_eq!((&told["files"], &told["dry_run"]), (&json!(2), &json!(true)));
    assert_eq!(rig.code(&["fs", "stat", "/hot/tree"]), Some(3), "a dry run changes nothing");
    assert_eq!(rig.ask(&["fs", "sync", local, remote])["files"], 2);
    assert_eq!(rig.ask(&["fs", "sync", local, remote])["same"], 2, "what is there is not moved again");
    fs::write(source.join("a"), "changed").unwrap();
    fs::remove_file(source.join("d/b")).unwrap();
    let told = rig.ask(&["fs", "sync", "--delete", local, remote]);
    assert_eq!((&told["files"], &told["deleted"]), (&json!(1), &json!(1)));
    let back = rig.folder.path().join("back");
    rig.ask(&["fs", "sync", remote, back.to_str().unwrap()]);
    assert_eq!(fs::read(back.join("a")).unwrap(), b"changed");
    assert!(back.join("d/empty").is_dir());
    assert_eq!(rig.code(&["fs", "sync", local, local]), Some(2));

    rig.ask(&["fs", "ln", "/hot/tree/a", "/hot/tree/hard"]);
    rig.ask(&["fs", "ln", "-s", "a", "/hot/tree/soft"]);
    rig.ask(&["fs", "chmod", "640", "/hot/tree/a"]);
    rig.ask(&["fs", "chown", "12:34", "/hot/tree/a"]);
    rig.ask(&["fs", "xattr", "set", "/hot/tree/a", "user.note", "seen"]);
    assert_eq!(rig.ask(&["fs", "stat", "/hot/tree/hard"])["mode"], 0o640);
    let xattrs = rig.ask(&["fs", "xattr", "ls", "/hot/tree/hard"]);
    assert_eq!(xattrs["xattrs"], json!([{"name": "user.note", "value": "seen"}]));
    rig.ask(&["fs", "truncate", "3", "/hot/tree/a"]);
    let sums = rig.ask(&["fs", "checksum", "/hot/tree/hard"]);
    assert_eq!(sums["sums"][0]["bytes"], 3);

    assert_eq!(rig.code(&["fs", "cp", "/hot/tree", "/hot/copy"]), Some(2), "-r is missing");
    assert_eq!(rig.ask(&["fs", "cp", "-r", "/hot/tree", "/hot/copy"])["files"], 2);
    let copied = rig.ask(&["fs", "checksum", "/hot/copy/a"]);
    assert_eq!(copied["sums"][0]["sha256"], sums["sums"][0]["sha256"]);
    let tree = rig.ask(&["fs", "tree", "/hot/copy"]);
    assert_eq!((&tree["directories"], &tree["files"]), (&json!(2), &json!(3)));

    rig.ask(&["fs", "quota", "--files", "6", "/hot/copy"]);
    assert_eq!(rig.ask(&["fs", "quota", "/hot/copy"])["files_max"], 6);
    rig.ask(&["fs", "mkdir", "/hot/copy/one"]);
    assert_eq!(rig.code(&["fs", "mkdir", "/hot/copy/two"]), Some(1), "over the quota");

    rig.ask(&["fs", "space", "--undelete", "7d", "hot"]);
    assert_eq!(rig.ask(&["fs", "space", "hot"])["undelete_ms"], 604_800_000_u64);
    rig.ask(&["fs", "rm", "-r", "/hot/copy"]);
    let trash = rig.ask(&["fs", "trash", "ls", "hot"]);
    let entry =
        trash["entries"].as_array().unwrap().iter().find(|entry| entry["path"] == "/hot/copy").unwrap();
    let id = entry["id"].to_string();
    rig.ask(&["fs", "trash", "restore", &id, "/hot/again"]);
    assert_eq!(rig.ask(&["fs", "checksum", "/hot/again/a"])["sums"][0]["sha256"], sums["sums"][0]["sha256"]);
    rig.ask(&["fs", "trash", "purge", "--all"]);
    assert_eq!(rig.ask(&["fs", "trash", "ls"])["entries"], json!([]));
    rig.region.down().unwrap();
}
