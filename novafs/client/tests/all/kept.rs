//! What else of a file is kept than its bytes, and which bytes are not stored at all.
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use novafs_client::{ClientError, GetOptions, OpenOptions, Progress, Source};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::region::{Region, options};

const MIB: u64 = 1 << 20;

/// A folder on a file system with holes and extended attributes.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn source(local: &Path, target: &str) -> Source {
    Source { local: local.to_owned(), target: target.into() }
}

/// Where the blocks of a published file lie.
fn stretches(region: &Region, path: &str) -> Vec<(u64, u64)> {
    region.metadata().files[path].blocks.iter().map(|block| (block.offset, block.bytes)).collect()
}

fn stored(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn a_hole_is_neither_put_nor_copied_nor_written_by_a_get() {
    let (region, folder) = (Region::start(), folder());
    let client = region.client();
    let local = folder.path().join("sparse");
    let file = File::create(&local).unwrap();
    file.set_len(300 * MIB).unwrap();
    file.write_all_at(&[7; 3 << 20], 64 * MIB).unwrap();
    file.write_all_at(&[8; 100], 250 * MIB).unwrap();
    let put = client.put([source(&local, "/hot/a")].into_iter(), &options(), &Progress::default()).unwrap();
    assert_eq!((put.files, put.bytes), (1, 300 * MIB), "{:?}", put.failures);
    let kept = stretches(&region, "/hot/a");
    assert_eq!(kept[0], (64 * MIB, 3 * MIB));
    assert!(kept.len() == 2 && kept[1].0 == 250 * MIB && kept[1].1 < MIB, "{kept:?}");
    client.copy_file("/hot/a", "/hot/b", false, &Progress::default()).unwrap();
    assert_eq!(stretches(&region, "/hot/b"), kept);
    assert_eq!(region.metadata().files["/hot/b"].bytes, 300 * MIB);
    let back = folder.path().join("back");
    client.get("/hot/b", &back, &GetOptions::default(), &Progress::default()).unwrap();
    assert!(stored(&back) < 8 * MIB, "{} bytes on disk", stored(&back));
    assert!(fs::read(&back).unwrap() == fs::read(&local).unwrap());
}

#[test]
fn zeros_that_were_never_written_within_a_block_stay_a_hole() {
    let (region, folder) = (Region::start(), folder());
    let client = region.client();
    let make = OpenOptions { write: true, create: true, mode: 0o640, ..OpenOptions::default() };
    let file = client.open("/hot/open", &make).unwrap();
    file.write_at(0, b"begin").unwrap();
    file.write_at(40 * MIB + 5, b"end").unwrap();
    file.set_bytes(200 * MIB).unwrap();
    file.close().unwrap();
    client.copy_file("/hot/open", "/hot/copy", false, &Progress::default()).unwrap();
    let kept: u64 = stretches(&region, "/hot/copy").iter().map(|(_, bytes)| bytes).sum();
    assert!(kept <= 2 * MIB, "{kept} bytes are stored");
    for path in ["/hot/open", "/hot/copy"] {
        let back = folder.path().join("back");
        client.get(path, &back, &GetOptions::default(), &Progress::default()).unwrap();
        assert!(stored(&back) <= 2 * MIB, "{} bytes on disk", stored(&back));
        let found = fs::read(&back).unwrap();
        assert_eq!((found.len() as u64, &found[..5]), (200 * MIB, &b"begin"[..]));
        assert_eq!(&found[40 << 20..][..10], b"\0\0\0\0\0end\0\0");
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_once_more() {
    let (region, folder) = (Region::start(), folder());
    let client = region.client();
    let local = folder.path().join("log");
    fs::write(&local, "log").unwrap();
    region.disk.lock().unwrap().grows = Some((local.clone(), 1));
    let report =
        client.put([source(&local, "/hot/log")].into_iter(), &options(), &Progress::default()).unwrap();
    assert_eq!((report.files, report.restarted), (1, 1), "{:?}", report.failures);
    let mut found = Vec::new();
    client.read("/hot/log", 0..u64::MAX, &mut found, &Progress::default()).unwrap();
    assert_eq!(found, b"log+");
}

#[test]
fn a_file_that_never_stops_changing_is_refused() {
    let (region, folder) = (Region::start(), folder());
    let client = region.client();
    let local = folder.path().join("log");
    fs::write(&local, "log").unwrap();
    region.disk.lock().unwrap().grows = Some((local.clone(), u32::MAX));
    let progress = Progress::default();
    let report = client.put([source(&local, "/hot/log")].into_iter(), &options(), &progress).unwrap();
    assert_eq!((report.files, report.failed), (0, 1));
    assert!(matches!(report.failures[0].1, ClientError::SourceChanged { .. }), "{:?}", report.failures);
    assert_eq!(progress.counts().bytes, 0, "nothing of it counts as done");
    assert!(region.metadata().files.is_empty());
}

#[test]
fn modes_owners_and_extended_attributes_go_both_ways() {
    let (region, folder) = (Region::start(), folder());
    let client = region.client();
    let local = folder.path().join("tool");
    fs::write(&local, "#!/bin/sh\n").unwrap();
    setxattr(&local, "user.origin", b"camera 7", XattrFlags::empty()).unwrap();
    fs::set_permissions(&local, fs::Permissions::from_mode(0o4751)).unwrap();
    let put =
        client.put([source(&local, "/hot/tool")].into_iter(), &options(), &Progress::default()).unwrap();
    assert_eq!((put.files, put.failed), (1, 0), "{:?}", put.failures);
    let about = fs::metadata(&local).unwrap();
    let file = region.metadata().files["/hot/tool"].clone();
    assert_eq!((file.mode, file.uid, file.gid), (0o4751, about.uid(), about.gid()));
    client.copy_file("/hot/tool", "/hot/copy", false, &Progress::default()).unwrap();
    let back = folder.path().join("back");
    let got = client.get("/hot/copy", &back, &GetOptions::default(), &Progress::default()).unwrap();
    assert_eq!((got.xattrs_lost, got.set_id_left), (0, 0));
    assert_eq!(fs::metadata(&back).unwrap().mode() & 0o7777, 0o4751);
    let mut value = [0; 64];
    let bytes = getxattr(&back, "user.origin", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..bytes], b"camera 7");
    region.metadata().files.get_mut("/hot/copy").unwrap().uid += 1;
    let got = client.get("/hot/copy", &back, &GetOptions::default(), &Progress::default()).unwrap();
    assert_eq!(got.set_id_left, 1);
    assert_eq!(fs::metadata(&back).unwrap().mode() & 0o7777, 0o751);
}
