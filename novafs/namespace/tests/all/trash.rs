//! What was removed can be had back for a while; old files go by themselves.

use std::time::Duration;

use nova_units::Timestamp;
use novafs_namespace::{
    Code, Collected, Expire, MakeDirectory, Op, OpenFile, Purge, PurgeTrash, Renewals, SetSpace, Undelete,
    Upkeep, plan,
};

use crate::kit::{Log, check};

const DAY_MS: u64 = 24 * 3600 * 1000;

fn make(log: &mut Log, path: &str) {
    let make = MakeDirectory { path: path.into(), parents: true, ..MakeDirectory::default() };
    log.try_apply(Op::MakeDirectory(make)).unwrap();
}

fn undelete(log: &mut Log, id: u64, target: &str) -> Result<(), Code> {
    log.try_apply(Op::Undelete(Undelete { id, target: target.into() }))
}

fn space(name: &str) -> SetSpace {
    SetSpace { name: name.into(), ..SetSpace::default() }
}

/// A leader that has just begun, and its plan at this time of both clocks.
struct Leader {
    renewals: Renewals,
    upkeep: Upkeep,
}

impl Leader {
    fn new() -> Self {
        Self { renewals: Renewals::default(), upkeep: Upkeep::default() }
    }

    fn plan(&mut self, log: &Log, now: Duration, wall_ms: u64) -> Vec<Op> {
        plan(&log.namespace, &mut self.renewals, &mut self.upkeep, now, Timestamp(wall_ms))
    }
}

#[test]
fn a_removed_file_and_a_tree_come_back_whole() {
    let mut log = Log::default();
    make(&mut log, "/hot/a/b");
    log.put("/hot/a/b/f", 10);
    log.put("/hot/g", 5);
    log.remove("/hot/a", true).unwrap();
    log.remove("/hot/g", false).unwrap();
    let page = log.namespace.list_trash("hot", 0, 0).unwrap();
    let shown: Vec<_> = page.items.iter().map(|(id, it)| (*id, &*it.path, it.weight.bytes)).collect();
    assert_eq!(shown, [(1, "/hot/a", 10), (2, "/hot/g", 5)]);
    assert_eq!(page.items[0].1.purge.since(page.items[0].1.removed), Duration::from_secs(24 * 3600));
    assert!(log.namespace.list_trash("warm", 0, 0).unwrap().items.is_empty());
    assert_eq!(log.namespace.list_trash("none", 0, 0).unwrap_err().code(), Code::NotFound);
    let first = log.namespace.list_trash("", 0, 1).unwrap();
    assert!(first.more && first.items.len() == 1);
    assert_eq!(log.namespace.list_trash("", 1, 1).unwrap().items[0].0, 2);

    assert_eq!(undelete(&mut log, 1, "/warm/deep/er/a"), Ok(()), "directories on the way are made");
    assert_eq!(log.stat("/warm/deep/er/a/b/f").bytes, 10);
    assert_eq!(undelete(&mut log, 1, ""), Err(Code::NotFound), "once");
    log.put("/hot/g", 1);
    assert_eq!(undelete(&mut log, 2, ""), Err(Code::AlreadyExists));
    assert_eq!(undelete(&mut log, 2, "/g"), Err(Code::Invalid), "a file is no namespace");
    assert_eq!(undelete(&mut log, 2, "/none/g"), Err(Code::NotFound), "nor is one made");
    assert_eq!(undelete(&mut log, 2, "/hot/g2"), Ok(()));
    assert_eq!(log.namespace.usage(0, "/").unwrap().0.bytes, 16);
    check(&log.namespace);
}

#[test]
fn a_namespace_comes_back_with_its_policy() {
    let mut log = Log::default();
    make(&mut log, "/mine");
    let policy = SetSpace { replicas: Some(2), unit_log2: Some(12), ..space("mine") };
    log.try_apply(Op::SetSpace(policy)).unwrap();
    log.put("/mine/f", 1);
    log.remove("/mine", true).unwrap();
    assert!(log.namespace.space("mine").is_none());
    assert_eq!(undelete(&mut log, 1, "/hot/mine"), Err(Code::Invalid));
    assert_eq!(undelete(&mut log, 1, "/yours"), Ok(()));
    let policy = log.namespace.space("yours").unwrap();
    assert_eq!((policy.replicas.get(), policy.unit_log2), (2, 12));
    check(&log.namespace);
}

#[test]
fn without_a_window_what_is_removed_is_gone() {
    let mut log = Log::default();
    log.try_apply(Op::SetSpace(SetSpace { undelete_ms: Some(0), ..space("scratch") })).unwrap();
    log.put("/scratch/f", 1);
    log.remove("/scratch/f", false).unwrap();
    assert_eq!(log.namespace.orphans().count(), 1);
    let session = log.open();
    let inode = log.open_file(session, "/scratch/open").unwrap().inode;
    log.remove("/scratch/open", false).unwrap();
    assert!(log.namespace.entry(nova_units::InodeId(inode), 0).is_ok(), "but not under who writes it");
    check(&log.namespace);
}

#[test]
fn the_trash_is_emptied_by_time_by_wish_and_in_need() {
    let mut log = Log::default();
    for name in ["a", "b", "c"] {
        log.put(&format!("/hot/{name}"), 1);
        log.remove(&format!("/hot/{name}"), false).unwrap();
    }
    let left = |log: &Log| log.namespace.list_trash("", 0, 0).unwrap().items.len();
    assert_eq!(log.try_apply(Op::PurgeTrash(PurgeTrash { id: 2 })), Ok(()));
    assert_eq!(log.try_apply(Op::PurgeTrash(PurgeTrash { id: 2 })), Err(Code::NotFound));
    assert_eq!((left(&log), log.namespace.orphans().count()), (2, 1));
    let purge = |now_ms, early| Op::Purge(Purge { limit: 1, now_ms, early });
    log.apply(purge(u64::MAX, false));
    assert_eq!(left(&log), 2, "by the clock of the log nothing is due");
    log.at_ms = 2 * DAY_MS;
    log.apply(purge(DAY_MS / 2, false));
    assert_eq!(left(&log), 2, "nor by that of the leader");
    log.apply(purge(2 * DAY_MS, false));
    assert_eq!(left(&log), 1, "a limited number a command");
    log.apply(purge(2 * DAY_MS, true));
    assert_eq!(left(&log), 0);
    log.put("/hot/a", 1);
    log.remove("/hot/a", false).unwrap();
    log.try_apply(Op::PurgeTrash(PurgeTrash { id: 0 })).unwrap();
    assert_eq!(left(&log), 0, "out of sight at once");
    assert_eq!(undelete(&mut log, 4, ""), Err(Code::NotFound));
    log.apply(purge(0, false));
    assert_eq!(log.namespace.orphans().count(), 4);
    check(&log.namespace);
}

#[test]
fn on_full_devices_what_is_due_first_goes_until_it_stores_enough() {
    let mut log = Log::default();
    for name in ["a", "b", "c", "written"] {
        log.put(&format!("/hot/{name}"), 10);
    }
    let session = log.open();
    log.open_file(session, "/hot/written").unwrap();
    for name in ["written", "a", "b", "c"] {
        log.at_ms += 1000;
        log.remove(&format!("/hot/{name}"), false).unwrap();
    }
    let names = |log: &Log| -> Vec<String> {
        let page = log.namespace.list_trash("", 0, 0).unwrap();
        page.items.iter().map(|(_, item)| item.path.to_string()).collect()
    };
    let collected = |purge_bytes| Op::Collected(Collected { purge_bytes, ..Collected::default() });
    log.apply(collected(0));
    assert_eq!(names(&log).len(), 4);
    // The one that is written is passed over, and a file more than is wanted goes rather than one too few.
    log.apply(collected(11));
    assert_eq!(names(&log), ["/hot/written", "/hot/c"]);
    log.apply(collected(u64::MAX));
    assert_eq!(names(&log), ["/hot/written"], "and it waits for who writes it");
    assert_eq!(log.namespace.trash_len(), 1);
    check(&log.namespace);
}

#[test]
fn a_file_in_the_trash_waits_for_who_writes_it() {
    let mut log = Log::default();
    let session = log.open();
    log.open_file(session, "/hot/f").unwrap();
    log.remove("/hot/f", false).unwrap();
    log.at_ms = 2 * DAY_MS;
    log.apply(Op::Purge(Purge { limit: 9, now_ms: 2 * DAY_MS, early: false }));
    let page = log.namespace.list_trash("", 0, 0).unwrap();
    assert_eq!(page.items.len(), 1);
    assert!(page.items[0].1.purge.0 > 2 * DAY_MS);
    check(&log.namespace);
}

#[test]
fn retention_counts_from_the_last_modification_and_from_when_a_file_came() {
    let mut log = Log { at_ms: 10 * DAY_MS, ..Log::default() };
    log.put("/scratch/f", 1);
    log.put("/hot/f", 1);
    let old = log.stat("/scratch/f");
    assert!(old.modified_ns < old.created_ns, "its client says that it is old");
    let written = log.open();
    let open =
        OpenFile { session: written, path: "/scratch/written".into(), create: true, ..OpenFile::default() };
    log.try_apply(Op::OpenFile(open)).unwrap();

    let mut leader = Leader::new();
    let now = |ms: u64| (Duration::from_millis(ms), ms);
    let (mono, wall) = now(10 * DAY_MS + DAY_MS / 2);
    let expires = |ops: Vec<Op>| ops.into_iter().find(|op| matches!(op, Op::Expire(_)));
    assert_eq!(expires(leader.plan(&log, mono, wall)), None);
    let (mono, wall) = now(11 * DAY_MS + 5000);
    let due = expires(leader.plan(&log, mono, wall)).expect("a day has passed");
    assert_eq!(due, Op::Expire(Expire { inodes: vec![old.inode.0], now_ms: wall }));
    log.apply(due.clone());
    assert!(log.namespace.stat(0, "/scratch/f").is_ok(), "apply goes by the clock of the log as well");
    log.at_ms = wall;
    log.apply(due);
    assert_eq!(log.namespace.stat(0, "/scratch/f").unwrap_err().code(), Code::NotFound);
    assert_eq!(&*log.namespace.list_trash("scratch", 0, 0).unwrap().items[0].1.path, "/scratch/f");
    assert!(log.namespace.stat(0, "/hot/f").is_ok() && log.namespace.stat(0, "/scratch/written").is_ok());
    log.try_apply(Op::SetSpace(SetSpace { retention_ms: Some(1000), ..space("hot") })).unwrap();
    let (mono, wall) = (mono + Duration::from_secs(60), wall + 60_000);
    assert!(expires(leader.plan(&log, mono, wall)).is_some(), "a shorter retention counts at once");
    check(&log.namespace);
}

#[test]
fn a_clock_that_jumps_holds_what_destroys() {
    let mut log = Log { at_ms: 10 * DAY_MS, ..Log::default() };
    log.put("/scratch/f", 1);
    log.put("/scratch/g", 1);
    log.remove("/scratch/g", false).unwrap();
    let destroys = |ops: Vec<Op>| ops.iter().any(|op| matches!(op, Op::Purge(_) | Op::Expire(_)));
    let at = |seconds| Duration::from_secs(seconds);
    let (start, late) = (10 * DAY_MS + 10_000, 12 * DAY_MS);
    let mut leader = Leader::new();
    assert!(!destroys(leader.plan(&log, at(1), start)));
    assert!(!destroys(leader.plan(&log, at(2), late)), "two days in a second");
    assert!(leader.upkeep.is_held());
    assert!(!destroys(leader.plan(&log, at(3), late + 1000)), "and it stays so");
    assert!(!destroys(leader.plan(&log, at(4), start + 3000)), "set back: right again, and nothing is due");
    assert!(!leader.upkeep.is_held());
    assert!(destroys(leader.plan(&log, at(2 * 24 * 3600), late)), "two days in two days");

    // Another leader, whose clock is right, while the log has already seen the wrong one.
    log.at_ms = 20 * DAY_MS;
    log.put("/hot/f", 1);
    let mut leader = Leader::new();
    assert!(!destroys(leader.plan(&log, at(1), late)));
    assert!(leader.upkeep.is_held());
    // What people ask for is done all the same.
    log.try_apply(Op::PurgeTrash(PurgeTrash { id: 0 })).unwrap();
    let ops = leader.plan(&log, at(2), late + 1000);
    assert!(matches!(ops[..], [.., Op::Purge(Purge { now_ms: 0, .. })]), "{ops:?}");
}
