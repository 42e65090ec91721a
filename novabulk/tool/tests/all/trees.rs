//! Copies of trees: everything that a tree is made of.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::rig::{Rig, copy, names, noise, text};

/// Every kind of entry that is copied.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for index in 0..300_usize {
        fs::write(root.join(format!("deep/small-{index}")), noise(index as u64, index * 37)).unwrap();
    }
    fs::write(root.join("deep/er/large"), noise(7, (2 << 20) + 3)).unwrap();
    fs::hard_link(root.join("deep/er/large"), root.join("again")).unwrap();
    fs::hard_link(root.join("deep/small-7"), root.join("seven")).unwrap();
    symlink("deep/er/large", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    let mut sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.seek(SeekFrom::Start((40 << 20) + 5)).unwrap();
    sparse.write_all(b"here").unwrap();
    fs::set_permissions(root.join("deep/small-1"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o555)).unwrap();
    let attributed = File::open(root.join("deep/small-2")).unwrap();
    rustix::fs::fsetxattr(&attributed, "user.colour", b"blue", rustix::fs::XattrFlags::empty()).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_234_567, 890);
    for name in ["deep/small-3", "deep/er/large", "deep/er", "empty", "deep"] {
        File::open(root.join(name)).unwrap().set_modified(old).unwrap();
    }
}

/// Panics unless both trees are the same, in all that is copied.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (a, b) = (fs::symlink_metadata(one).unwrap(), fs::symlink_metadata(other).unwrap());
    let place = one.display();
    assert_eq!(a.file_type(), b.file_type(), "{place}");
    if a.is_symlink() {
        assert_eq!(fs::read_link(one).unwrap(), fs::read_link(other).unwrap());
        return;
    }
    assert_eq!((a.mode(), a.mtime(), a.mtime_nsec()), (b.mode(), b.mtime(), b.mtime_nsec()), "{place}");
    if a.is_dir() {
        assert_eq!(names(one), names(other), "{place}");
        for name in names(one) {
            assert_same(&one.join(&name), &other.join(&name));
        }
    } else {
        assert_eq!(a.len(), b.len(), "{place}");
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{place}");
    }
}

#[test]
fn a_tree_arrives_with_all_that_it_is_made_of() {
    let rig = Rig::new(&[]);
    fs::create_dir(rig.here("tree")).unwrap();
    plant(&rig.here("tree"));
    let copied = copy(&[text(&rig.here("tree")), rig.served.at("")]).good();
    assert_same(&rig.here("tree"), &rig.there("tree"));
    assert_eq!(copied.number("files"), 302, "a file with two names comes once");
    let inode = |name: &str| fs::metadata(rig.there("tree").join(name)).unwrap().ino();
    assert_eq!((inode("again"), inode("seven")), (inode("deep/er/large"), inode("deep/small-7")));
    let stored = fs::metadata(rig.there("tree/sparse")).unwrap().blocks() * 512;
    assert!(stored <= 2 << 20, "holes stay holes: {stored} bytes are stored");
    let attributed = File::open(rig.there("tree/deep/small-2")).unwrap();
    let mut value = [0; 16];
    let count = rustix::fs::fgetxattr(&attributed, "user.colour", &mut value[..]).unwrap();
    assert_eq!(&value[..count], b"blue");
    let again = copy(&[text(&rig.here("tree")), rig.served.at("")]).good();
    assert_eq!((again.number("files"), again.number("bytes_sent"), again.number("same")), (0, 0, 302));
    assert_same(&rig.here("tree"), &rig.there("tree"));
}

#[test]
fn a_tree_comes_back_as_it_went() {
    let rig = Rig::new(&[]);
    fs::create_dir(rig.there("tree")).unwrap();
    plant(&rig.there("tree"));
    copy(&[rig.served.at("tree/"), text(&rig.here("back"))]).good();
    assert_eq!(names(&rig.there("tree")), names(&rig.here("back")));
    assert_same(&rig.there("tree/deep"), &rig.here("back/deep"));
}

#[test]
fn patterns_choose_files_and_extra_ones_are_removed_only_in_what_is_copied() {
    let rig = Rig::new(&[]);
    for name in ["t/keep.rs", "t/drop.tmp", "t/sub/keep.rs", "t/target/x.rs", "t/notes.md"] {
        fs::create_dir_all(rig.here(name).parent().unwrap()).unwrap();
        fs::write(rig.here(name), name).unwrap();
    }
    for name in ["t/old.rs", "t/gone/a/b.rs", "t/mine.tmp", "other"] {
        fs::create_dir_all(rig.there(name).parent().unwrap()).unwrap();
        fs::write(rig.there(name), name).unwrap();
    }
    let (source, target) = (text(&rig.here("t")), rig.served.at(""));
    let with = |first: &[&str]| {
        let mut all: Vec<String> = first.iter().map(|&one| one.to_owned()).collect();
        all.extend(["--exclude", "*.tmp", "--exclude", "target", "--delete"].map(str::to_owned));
        all.extend([source.clone(), target.clone()]);
        copy(&all)
    };
    let dry = with(&["--dry-run"]).good();
    assert_eq!((dry.number("files"), dry.number("removed")), (3, 2), "{dry:?}");
    assert_eq!(names(&rig.there("t")), ["gone", "mine.tmp", "old.rs"], "a dry run does nothing");
    let done = with(&[]).good();
    assert_eq!((done.number("files"), done.number("removed")), (3, 2), "{done:?}");
    assert_eq!(names(&rig.there("t")), ["keep.rs", "mine.tmp", "notes.md", "sub"]);
    assert!(rig.there("other").exists());
    let some = ["--include", "*.md"].map(str::to_owned);
    let only = copy(&[some.as_slice(), &[source.clone(), rig.served.at("only/")]].concat()).good();
    assert_eq!((only.number("files"), names(&rig.there("only/t"))), (1, vec!["notes.md".to_owned()]));
}

#[test]
fn what_is_in_the_way_is_told_and_nothing_is_removed_then() {
    let rig = Rig::new(&[]);
    fs::create_dir(rig.here("t")).unwrap();
    fs::write(rig.here("t/a"), b"file").unwrap();
    fs::create_dir_all(rig.there("t/a/inside")).unwrap();
    fs::write(rig.there("t/extra"), b"x").unwrap();
    let copied = copy(&["--delete".to_owned(), text(&rig.here("t")), rig.served.at("")]);
    assert_eq!(copied.code, Some(1), "{copied:?}");
    assert!(copied.errors.contains("is a directory at the target"), "{copied:?}");
    assert!(rig.there("t/extra").exists() && rig.there("t/a/inside").exists());
}
