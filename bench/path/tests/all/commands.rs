//! What `nova fs` does with files that are there: copy, synchronize, change, remove and bring back.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

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
fn links_holes_and_attributes_are_kept_by_whatever_moves_a_tree() {
    let rig = Rig::start("commands-kept", 512);
    let source = rig.local("kept");
    fs::create_dir_all(source.join("d/deep")).unwrap();
    fs::write(source.join("a"), vec![3; 100_000]).unwrap();
    fs::hard_link(source.join("a"), source.join("d/again")).unwrap();
    symlink("../a", source.join("d/deep/link")).unwrap();
    fs::set_permissions(source.join("d"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(source.join("a"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::File::create(source.join("sparse")).unwrap().set_len(4 << 30).unwrap();
    let local = source.to_str().unwrap();

    let told = rig.ask(&["fs", "put", local, "/hot"]);
    assert_eq!((&told["files"], &told["links"], &told["skipped"]), (&json!(2), &json!(2), &json!(0)));
    rig.ask(&["fs", "xattr", "set", "/hot/kept/a", "user.note", "seen"]);
    let told = rig.ask(&["fs", "cp", "-r", "/hot/kept", "/warm/kept"]);
    assert_eq!((&told["files"], &told["links"]), (&json!(2), &json!(2)), "4 GiB of a hole fit the region");
    assert_eq!(rig.ask(&["fs", "stat", "/warm/kept/d"])["mode"], 0o750);
    let xattrs = rig.ask(&["fs", "xattr", "ls", "/warm/kept/d/again"]);
    assert_eq!(xattrs["xattrs"], json!([{"name": "user.note", "value": "seen"}]));

    for words in [
        &["fs", "put", local, "/hto/kept"][..],
        &["fs", "cp", "-r", "/hot/kept", "/hto/kept"],
        &["fs", "sync", local, "nova:/hto/kept"],
        &["fs", "stat", "/hto"],
    ] {
        assert_eq!(rig.code(words), Some(3), "a name that was misspelt makes no namespace: {words:?}");
    }

    let back = rig.folder.path().join("kept-back");
    let told = rig.ask(&["fs", "get", "/warm/kept", back.to_str().unwrap()]);
    assert_eq!((&told["files"], &told["links"]), (&json!(2), &json!(2)));
    let back = back.join("kept");
    let (one, other) = (fs::metadata(back.join("a")).unwrap(), fs::metadata(back.join("d/again")).unwrap());
    assert_eq!((one.ino(), one.mode() & 0o7777), (other.ino(), 0o4751));
    assert_eq!(fs::read_link(back.join("d/deep/link")).unwrap().to_str(), Some("../a"));
    let sparse = fs::metadata(back.join("sparse")).unwrap();
    assert_eq!((sparse.len(), sparse.blocks()), (4 << 30, 0));

    let remote = "nova:/hot/kept";
    fs::remove_dir_all(source.join("d")).unwrap();
    symlink("a", source.join("new")).unwrap();
    let told = rig.ask(&["fs", "sync", "--delete", local, remote]);
    assert_eq!((&told["links"], &told["deleted"]), (&json!(1), &json!(4)), "a folder with a link goes");
    assert_eq!(rig.ask(&["fs", "sync", "--delete", local, remote])["same"], 3);
    let pulled = rig.folder.path().join("pulled");
    fs::create_dir_all(pulled.join("old")).unwrap();
    symlink("nowhere", pulled.join("old/link")).unwrap();
    let told = rig.ask(&["fs", "sync", "--delete", remote, pulled.to_str().unwrap()]);
    assert_eq!((&told["files"], &told["links"], &told["deleted"]), (&json!(2), &json!(1), &json!(2)));
    assert_eq!(fs::read_link(pulled.join("new")).unwrap().to_str(), Some("a"));

    rig.ask(&["fs", "rm", "/hot/kept/a"]);
    let trash = rig.ask(&["fs", "trash", "ls", "hot"]);
    let entry = trash["entries"].as_array().unwrap().iter().find(|entry| entry["path"] == "/hot/kept/a");
    rig.ask(&["fs", "undelete", &entry.unwrap()["id"].to_string()]);
    assert_eq!(rig.ask(&["fs", "stat", "/hot/kept/a"])["bytes"], 100_000);

    rig.ask(&["fs", "space", "--unit-log2", "12", "warm"]);
    let large = rig.local("more").join("large");
    fs::write(&large, vec![5; (3 << 20) + 1]).unwrap();
    rig.ask(&["fs", "put", large.to_str().unwrap(), "/warm/large"]);
    let located = rig.ask(&["fs", "locate", "/warm/large"]);
    let units = located["units"].as_array().unwrap();
    assert_eq!((units.len(), &units[0]["replicas"][0]["stored_bytes"]), (769, &json!(4096)));
    assert!(units.iter().all(|unit| unit["replicas"].as_array().unwrap().len() == 3));
    rig.region.down().unwrap();
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
    let told = rig.ask(&["fs", "cp", "-r", "/hot/tree", "/hot/copy"]);
    assert_eq!(
        (&told["files"], &told["links"]),
        (&json!(1), &json!(2)),
        "two names of a file and a symbolic link"
    );
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
