//! Facts of POSIX on a mount, one named check each. They share a region: starting one takes longer than all of them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use super::mounted::{Mounted, bytes_of, cannot_mount};
use super::rig::Rig;

type Check = (&'static str, fn(&Path));

/// Every fact, each in a fresh directory.
const CHECKS: &[Check] = &[
    ("a_file_is_read_back_as_written", read_back),
    ("a_name_that_is_missing_is_enoent", missing),
    ("exclusive_creation_refuses_a_file_that_exists", exclusive),
    ("mode_and_owner_are_kept", mode_and_owner),
    ("the_umask_is_applied", umask),
    ("a_directory_that_holds_something_is_not_removed", not_empty),
    ("unlink_refuses_directories_and_rmdir_files", unlink_kinds),
    ("rename_replaces_a_file_and_keeps_the_inode", rename_over),
    ("rename_refuses_mismatched_kinds", rename_kinds),
    ("rename_replaces_an_empty_directory_only", rename_directories),
    ("rename_into_itself_is_refused", rename_into_itself),
    ("rename_without_replace_refuses_a_target", rename_no_replace),
    ("rename_exchange_swaps", rename_exchange),
    ("hard_links_share_bytes_and_are_counted", hard_links),
    ("a_directory_cannot_be_linked", link_directory),
    ("a_symbolic_link_keeps_its_target", symbolic_links),
    ("a_loop_of_symbolic_links_is_eloop", symlink_loop),
    ("a_name_of_255_bytes_fits_and_256_do_not", long_names),
    ("names_may_hold_any_letter_but_a_slash", odd_names),
    ("an_unlinked_file_stays_usable_while_it_is_open", unlinked_open),
    ("a_file_replaced_by_rename_stays_readable_while_it_is_open", replaced_open),
    ("truncate_cuts_and_growth_is_zeros", truncate),
    ("what_was_cut_does_not_come_back", cut_stays_cut),
    ("a_write_past_the_end_leaves_zeros", holes),
    ("appends_go_to_the_end", appends),
    ("o_trunc_empties", open_truncate),
    ("two_handles_see_each_others_writes", two_handles),
    ("stat_shows_the_length_while_it_is_written", length_while_written),
    ("times_are_set_to_the_nanosecond", times),
    ("a_set_time_survives_a_close_after_writes", time_after_write),
    ("writing_moves_the_time_of_change", write_moves_time),
    ("fallocate_extends_and_keeps", fallocate),
    ("punching_holes_is_not_supported", punch_hole),
    ("extended_attributes_are_set_listed_and_removed", xattrs),
    ("statfs_tells_room_and_longest_name", statfs),
    ("pipes_and_devices_are_refused", special_files),
    ("reading_a_large_directory_misses_nothing", large_directory),
    ("reading_a_directory_is_steady_while_names_come_and_go", steady_directory),
    ("a_deep_tree_works", deep_tree),
    ("many_threads_write_their_files", many_threads),
    ("a_copy_of_a_file_is_the_same", copy_whole),
];

#[test]
fn a_mount_keeps_the_facts_of_posix() {
    if cannot_mount().is_some() {
        return;
    }
    let rig = Rig::start("posix", 1024);
    let mounted = Mounted::start(&rig, "/hot");
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let folder = mounted.at.join(name);
        fs::create_dir(&folder).unwrap();
        if catch_unwind(AssertUnwindSafe(|| check(&folder))).is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{} of {} facts do not hold: {failed:#?}", failed.len(), CHECKS.len());
    mounted.end();
    rig.region.down().unwrap();
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.map(drop).unwrap_err().kind()
}

fn number<T>(result: std::io::Result<T>) -> i32 {
    result.map(drop).unwrap_err().raw_os_error().unwrap()
}

fn read_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    options
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn read_back(at: &Path) {
    for bytes in [0, 1, 4095, 65_536, 65_537, 3_000_000] {
        let content: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect();
        fs::write(at.join("f"), &content).unwrap();
        assert_eq!(bytes_of(&at.join("f")), content);
        assert_eq!(fs::metadata(at.join("f")).unwrap().len(), bytes);
    }
}

fn missing(at: &Path) {
    assert_eq!(kind(File::open(at.join("no"))), ErrorKind::NotFound);
    assert_eq!(kind(fs::remove_file(at.join("no"))), ErrorKind::NotFound);
    assert_eq!(kind(fs::remove_dir(at.join("no"))), ErrorKind::NotFound);
    assert_eq!(kind(fs::rename(at.join("no"), at.join("x"))), ErrorKind::NotFound);
    fs::write(at.join("f"), "").unwrap();
    assert_eq!(kind(File::open(at.join("f/below"))), ErrorKind::NotADirectory);
}

fn exclusive(at: &Path) {
    let open = || OpenOptions::new().write(true).create_new(true).open(at.join("f"));
    open().unwrap();
    assert_eq!(kind(open()), ErrorKind::AlreadyExists);
    assert_eq!(kind(fs::create_dir(at.join("f"))), ErrorKind::AlreadyExists);
}

fn mode_and_owner(at: &Path) {
    let path = at.join("f");
    fs::write(&path, "x").unwrap();
    for mode in [0o600, 0o4755, 0o1777, 0o000] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
    }
    std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid()), (1234, 5678));
    std::os::unix::fs::chown(&path, None, Some(9)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), 1234);
}

fn umask(at: &Path) {
    let old = rustix::process::umask(Mode::from_raw_mode(0o027));
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o666).open(at.join("f")).unwrap();
    fs::create_dir(at.join("d")).unwrap();
    rustix::process::umask(old);
    assert_eq!(fs::metadata(at.join("f")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(at.join("d")).unwrap().mode() & 0o777, 0o750);
}

fn not_empty(at: &Path) {
    fs::create_dir(at.join("d")).unwrap();
    fs::write(at.join("d/f"), "x").unwrap();
    assert_eq!(kind(fs::remove_dir(at.join("d"))), ErrorKind::DirectoryNotEmpty);
    fs::remove_file(at.join("d/f")).unwrap();
    fs::remove_dir(at.join("d")).unwrap();
    assert!(!at.join("d").exists());
}

fn unlink_kinds(at: &Path) {
    fs::create_dir(at.join("d")).unwrap();
    fs::write(at.join("f"), "x").unwrap();
    assert_eq!(kind(fs::remove_file(at.join("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(fs::remove_dir(at.join("f"))), ErrorKind::NotADirectory);
}

fn rename_over(at: &Path) {
    fs::write(at.join("old"), "old").unwrap();
    fs::write(at.join("new"), "new").unwrap();
    let inode = fs::metadata(at.join("new")).unwrap().ino();
    fs::rename(at.join("new"), at.join("old")).unwrap();
    assert_eq!(bytes_of(&at.join("old")), b"new");
    assert_eq!(fs::metadata(at.join("old")).unwrap().ino(), inode);
    assert_eq!(names(at), BTreeSet::from(["old".to_owned()]));
    fs::rename(at.join("old"), at.join("old")).unwrap();
    assert_eq!(bytes_of(&at.join("old")), b"new");
}

fn rename_kinds(at: &Path) {
    fs::create_dir(at.join("d")).unwrap();
    fs::write(at.join("f"), "x").unwrap();
    assert_eq!(kind(fs::rename(at.join("f"), at.join("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(fs::rename(at.join("d"), at.join("f"))), ErrorKind::NotADirectory);
}

fn rename_directories(at: &Path) {
    for name in ["a", "empty", "full"] {
        fs::create_dir(at.join(name)).unwrap();
    }
    fs::write(at.join("full/f"), "x").unwrap();
    let refused = number(fs::rename(at.join("a"), at.join("full")));
    assert!([Errno::NOTEMPTY, Errno::EXIST].map(Errno::raw_os_error).contains(&refused));
    fs::rename(at.join("full"), at.join("empty")).unwrap();
    assert_eq!(bytes_of(&at.join("empty/f")), b"x");
}

fn rename_into_itself(at: &Path) {
    fs::create_dir_all(at.join("a/b")).unwrap();
    assert_eq!(number(fs::rename(at.join("a"), at.join("a/b/c"))), Errno::INVAL.raw_os_error());
}

fn rename_no_replace(at: &Path) {
    fs::write(at.join("a"), "a").unwrap();
    fs::write(at.join("b"), "b").unwrap();
    let rename = |target: &str| {
        rustix::fs::renameat_with(CWD, at.join("a"), CWD, at.join(target), RenameFlags::NOREPLACE)
    };
    assert_eq!(rename("b"), Err(Errno::EXIST));
    rename("c").unwrap();
    assert_eq!(bytes_of(&at.join("c")), b"a");
}

fn rename_exchange(at: &Path) {
    fs::write(at.join("f"), "f").unwrap();
    fs::create_dir(at.join("d")).unwrap();
    let exchange = |target: &str| {
        rustix::fs::renameat_with(CWD, at.join("f"), CWD, at.join(target), RenameFlags::EXCHANGE)
    };
    exchange("d").unwrap();
    assert!(at.join("f").is_dir());
    assert_eq!(bytes_of(&at.join("d")), b"f");
    assert_eq!(exchange("no"), Err(Errno::NOENT));
}

fn hard_links(at: &Path) {
    fs::write(at.join("a"), "one").unwrap();
    fs::hard_link(at.join("a"), at.join("b")).unwrap();
    fs::write(at.join("b"), "three").unwrap();
    assert_eq!(bytes_of(&at.join("a")), b"three");
    let links = |name: &str| fs::metadata(at.join(name)).unwrap().nlink();
    assert_eq!(fs::metadata(at.join("a")).unwrap().ino(), fs::metadata(at.join("b")).unwrap().ino());
    assert_eq!(links("b"), 2);
    fs::remove_file(at.join("a")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(links("b"), 1);
    assert_eq!(bytes_of(&at.join("b")), b"three");
    assert_eq!(kind(fs::hard_link(at.join("b"), at.join("b"))), ErrorKind::AlreadyExists);
}

fn link_directory(at: &Path) {
    fs::create_dir(at.join("d")).unwrap();
    assert_eq!(number(fs::hard_link(at.join("d"), at.join("e"))), Errno::PERM.raw_os_error());
}

fn symbolic_links(at: &Path) {
    fs::write(at.join("f"), "x").unwrap();
    symlink("f", at.join("l")).unwrap();
    symlink("no/such/place", at.join("dangling")).unwrap();
    assert_eq!(fs::read_link(at.join("l")).unwrap(), Path::new("f"));
    assert_eq!(bytes_of(&at.join("l")), b"x");
    let found = fs::symlink_metadata(at.join("dangling")).unwrap();
    assert!(found.file_type().is_symlink());
    assert_eq!(found.len(), 13);
    assert_eq!(kind(File::open(at.join("dangling"))), ErrorKind::NotFound);
    fs::remove_file(at.join("l")).unwrap();
    assert!(at.join("f").exists());
}

fn symlink_loop(at: &Path) {
    symlink("b", at.join("a")).unwrap();
    symlink("a", at.join("b")).unwrap();
    assert_eq!(number(File::open(at.join("a"))), Errno::LOOP.raw_os_error());
}

fn long_names(at: &Path) {
    let name = "n".repeat(255);
    fs::write(at.join(&name), "x").unwrap();
    assert_eq!(names(at), BTreeSet::from([name.clone()]));
    for result in [fs::write(at.join(format!("{name}n")), "x"), fs::create_dir(at.join("d".repeat(256)))] {
        assert_eq!(number(result), Errno::NAMETOOLONG.raw_os_error());
    }
}

fn odd_names(at: &Path) {
    for name in ["a b", "-f", "ä€😀", "tab\there", "#", "..."] {
        fs::write(at.join(name), name).unwrap();
        assert_eq!(bytes_of(&at.join(name)), name.as_bytes());
    }
    assert_eq!(names(at).len(), 6);
    let not_utf8 = at.join(std::ffi::OsStr::from_bytes(b"\xff"));
    assert_eq!(number(fs::write(not_utf8, "x")), Errno::ILSEQ.raw_os_error());
}

fn unlinked_open(at: &Path) {
    let mut file = read_write().open(at.join("f")).unwrap();
    file.write_all(b"before").unwrap();
    file.sync_all().unwrap();
    fs::remove_file(at.join("f")).unwrap();
    assert!(!at.join("f").exists());
    let mut found = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut found).unwrap();
    assert_eq!(found, "before");
    file.write_all(b" after").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    found.clear();
    file.read_to_string(&mut found).unwrap();
    assert_eq!(found, "before after");
    assert_eq!(file.metadata().unwrap().len(), 12);
    file.sync_all().unwrap();
    // The name is free again, and is another file.
    fs::write(at.join("f"), "other").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 12);
}

fn replaced_open(at: &Path) {
    fs::write(at.join("f"), "old").unwrap();
    let mut file = File::open(at.join("f")).unwrap();
    fs::write(at.join("g"), "new").unwrap();
    fs::rename(at.join("g"), at.join("f")).unwrap();
    let mut found = String::new();
    file.read_to_string(&mut found).unwrap();
    assert_eq!(found, "old");
}

fn truncate(at: &Path) {
    fs::write(at.join("f"), [7; 200_000]).unwrap();
    let file = read_write().open(at.join("f")).unwrap();
    file.set_len(70_001).unwrap();
    assert_eq!(bytes_of(&at.join("f")), [7; 70_001]);
    file.set_len(150_000).unwrap();
    let mut expected = vec![7; 70_001];
    expected.resize(150_000, 0);
    assert_eq!(bytes_of(&at.join("f")), expected);
    drop(file);
    // By name, with nobody having it open.
    rustix::fs::ftruncate(OpenOptions::new().write(true).open(at.join("f")).unwrap(), 3).unwrap();
    assert_eq!(bytes_of(&at.join("f")), [7; 3]);
}

fn cut_stays_cut(at: &Path) {
    let file = read_write().open(at.join("f")).unwrap();
    file.write_all_at(&[9; 300_000], 0).unwrap();
    file.set_len(100).unwrap();
    file.write_all_at(b"x", 250_000).unwrap();
    drop(file);
    let mut expected = vec![9; 100];
    expected.resize(250_000, 0);
    expected.push(b'x');
    assert_eq!(bytes_of(&at.join("f")), expected);
}

fn holes(at: &Path) {
    let file = read_write().open(at.join("f")).unwrap();
    file.write_all_at(b"end", 5_000_000).unwrap();
    drop(file);
    let found = bytes_of(&at.join("f"));
    assert_eq!(found.len(), 5_000_003);
    assert!(found[..5_000_000].iter().all(|byte| *byte == 0) && found.ends_with(b"end"));
}

fn appends(at: &Path) {
    fs::write(at.join("f"), "a").unwrap();
    let open = || OpenOptions::new().append(true).open(at.join("f")).unwrap();
    let (mut one, mut two) = (open(), open());
    for _ in 0..5 {
        one.write_all(b"1").unwrap();
        two.write_all(b"2").unwrap();
    }
    drop((one, two));
    assert_eq!(bytes_of(&at.join("f")), b"a1212121212");
}

fn open_truncate(at: &Path) {
    fs::write(at.join("f"), [1; 100_000]).unwrap();
    let file = File::create(at.join("f")).unwrap();
    assert_eq!(fs::metadata(at.join("f")).unwrap().len(), 0);
    drop(file);
    assert!(bytes_of(&at.join("f")).is_empty());
}

fn two_handles(at: &Path) {
    let one = read_write().open(at.join("f")).unwrap();
    let two = read_write().open(at.join("f")).unwrap();
    one.write_all_at(b"hello", 0).unwrap();
    let mut found = [0; 5];
    two.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"hello");
    two.write_all_at(b"J", 0).unwrap();
    one.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"Jello");
}

fn length_while_written(at: &Path) {
    let mut file = File::create(at.join("f")).unwrap();
    for index in 1..=20 {
        file.write_all(&[1; 10_000]).unwrap();
        assert_eq!(fs::metadata(at.join("f")).unwrap().len(), index * 10_000);
    }
}

fn set_times(path: &Path, accessed_ns: u64, modified_ns: u64) {
    let spec = |ns: u64| Timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap(),
        tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap(),
    };
    let times = Timestamps { last_access: spec(accessed_ns), last_modification: spec(modified_ns) };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

fn times(at: &Path) {
    fs::write(at.join("f"), "x").unwrap();
    fs::create_dir(at.join("d")).unwrap();
    for name in ["f", "d"] {
        let path = at.join(name);
        set_times(&path, 1_000_000_000_000_000_001, 1_600_000_000_123_456_789);
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_600_000_000, 123_456_789));
        assert_eq!((found.atime(), found.atime_nsec()), (1_000_000_000, 1));
    }
}

fn time_after_write(at: &Path) {
    let mut file = File::create(at.join("f")).unwrap();
    file.write_all(b"written before its time is set").unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    drop(file);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(fs::metadata(at.join("f")).unwrap().mtime(), 1_000_000);
}

fn write_moves_time(at: &Path) {
    fs::write(at.join("f"), "x").unwrap();
    set_times(&at.join("f"), 0, 0);
    let mut file = OpenOptions::new().append(true).open(at.join("f")).unwrap();
    file.write_all(b"y").unwrap();
    file.sync_all().unwrap();
    drop(file);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(fs::metadata(at.join("f")).unwrap().mtime() > 1_000_000_000);
}

fn fallocate(at: &Path) {
    let file = read_write().open(at.join("f")).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 10_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 50_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    drop(file);
    assert_eq!(bytes_of(&at.join("f")), [0; 10_000]);
}

fn punch_hole(at: &Path) {
    let file = read_write().open(at.join("f")).unwrap();
    file.write_all_at(&[1; 10_000], 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(rustix::fs::fallocate(&file, punch, 0, 4096), Err(Errno::OPNOTSUPP));
    assert_eq!(bytes_of(&at.join("f")), [1; 10_000]);
}

fn xattrs(at: &Path) {
    let path = at.join("f");
    fs::write(&path, "x").unwrap();
    rustix::fs::setxattr(&path, "user.one", b"1", XattrFlags::CREATE).unwrap();
    assert_eq!(rustix::fs::setxattr(&path, "user.one", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(rustix::fs::setxattr(&path, "user.two", b"2", XattrFlags::REPLACE), Err(Errno::NODATA));
    rustix::fs::setxattr(&path, "user.two", b"", XattrFlags::empty()).unwrap();
    let mut room = [0u8; 100];
    let count = rustix::fs::getxattr(&path, "user.one", &mut room).unwrap();
    assert_eq!(&room[..count], b"1");
    let count = rustix::fs::listxattr(&path, &mut room).unwrap();
    assert_eq!(&room[..count], b"user.one\0user.two\0");
    rustix::fs::removexattr(&path, "user.one").unwrap();
    assert_eq!(rustix::fs::getxattr(&path, "user.one", &mut room), Err(Errno::NODATA));
    assert_eq!(rustix::fs::removexattr(&path, "user.one"), Err(Errno::NODATA));
}

fn statfs(at: &Path) {
    let found = rustix::fs::statvfs(at).unwrap();
    assert_eq!(found.f_namemax, 255);
    assert!(found.f_blocks * found.f_frsize > 100 << 20, "{} blocks of {}", found.f_blocks, found.f_frsize);
    assert!(found.f_bavail > 0 && found.f_bavail <= found.f_blocks && found.f_ffree > 0);
}

fn special_files(at: &Path) {
    let made = rustix::fs::mknodat(CWD, at.join("p"), FileType::Fifo, Mode::from_raw_mode(0o644), 0);
    assert_eq!(made, Err(Errno::PERM));
    rustix::fs::mknodat(CWD, at.join("f"), FileType::RegularFile, Mode::from_raw_mode(0o640), 0).unwrap();
    assert_eq!(fs::metadata(at.join("f")).unwrap().mode() & 0o777, 0o640);
}

fn large_directory(at: &Path) {
    let expected: BTreeSet<String> = (0..700).map(|index| format!("name-{index}")).collect();
    for name in &expected {
        // Names only: bytes are for other checks.
        symlink("x", at.join(name)).unwrap();
    }
    assert_eq!(names(at), expected);
}

fn steady_directory(at: &Path) {
    for index in 0..400 {
        symlink("x", at.join(format!("keep-{index}"))).unwrap();
        if index < 100 {
            symlink("x", at.join(format!("gone-{index}"))).unwrap();
        }
    }
    let mut seen = Vec::new();
    for (index, entry) in fs::read_dir(at).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if index < 100 {
            fs::remove_file(at.join(format!("gone-{index}"))).unwrap();
            symlink("x", at.join(format!("new-{index}"))).unwrap();
        }
    }
    let kept: Vec<_> = seen.iter().filter(|name| name.starts_with("keep-")).collect();
    assert_eq!(kept.len(), 400, "each name that was there all the time is seen");
    assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), 400, "and once");
}

fn deep_tree(at: &Path) {
    let mut path = at.to_owned();
    for depth in 0..40 {
        path.push(format!("d{depth}"));
        fs::create_dir(&path).unwrap();
    }
    fs::write(path.join("f"), "deep").unwrap();
    assert_eq!(bytes_of(&path.join("f")), b"deep");
    fs::remove_dir_all(at.join("d0")).unwrap();
    assert!(names(at).is_empty());
}

fn many_threads(at: &Path) {
    std::thread::scope(|scope| {
        for thread in 0..6u8 {
            scope.spawn(move || {
                for file in 0..6 {
                    let path = at.join(format!("t{thread}-{file}"));
                    fs::write(&path, vec![thread + 1; 50_000]).unwrap();
                    assert_eq!(bytes_of(&path), vec![thread + 1; 50_000]);
                }
            });
        }
    });
    assert_eq!(names(at).len(), 36);
}

fn copy_whole(at: &Path) {
    let content: Vec<u8> = (0..2_500_000u32).map(|at| u8::try_from(at % 253).unwrap()).collect();
    fs::write(at.join("a"), &content).unwrap();
    assert_eq!(fs::copy(at.join("a"), at.join("b")).unwrap(), 2_500_000);
    assert_eq!(bytes_of(&at.join("b")), content);
}
