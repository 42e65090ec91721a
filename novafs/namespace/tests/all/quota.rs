//! Directories have bounds, namespaces policies.

use std::time::Duration;

use nova_units::Replicas;
use novafs_namespace::{
    Code, CommitFile, Failure, Link, MakeDirectory, MakeSymlink, Op, SetQuota, SetSpace, Undelete,
};

use crate::kit::{Log, block, check, file};

fn quota(log: &mut Log, path: &str, bytes_max: u64, files_max: u64) {
    let set = SetQuota { path: path.into(), bytes_max, files_max, ..SetQuota::default() };
    log.try_apply(Op::SetQuota(set)).unwrap();
}

fn make(log: &mut Log, path: &str) -> Result<(), Code> {
    let make = MakeDirectory { path: path.into(), parents: true, ..MakeDirectory::default() };
    log.try_apply(Op::MakeDirectory(make))
}

fn publish(log: &mut Log, files: &[(&str, u64)], replace: bool) -> Vec<Option<Failure>> {
    let session = log.open();
    let first = log.reserve(session, u32::try_from(files.len()).unwrap());
    let files = files.iter().zip(first..).map(|((path, bytes), block)| file(path, block, *bytes)).collect();
    log.publish(session, files, replace).into_iter().map(|outcome| outcome.failure).collect()
}

#[test]
fn a_quota_counts_bytes_within_one_command_too_and_its_error_names_the_directory() {
    let mut log = Log::default();
    make(&mut log, "/hot/team/a").unwrap();
    quota(&mut log, "/hot/team", 100, 0);
    let outcomes = publish(
        &mut log,
        &[
            ("/hot/team/x", 60),
            ("/hot/team/a/y", 30),
            ("/hot/team/z", 20),
            ("/hot/free", 500),
            ("/hot/team/z", 10),
        ],
        false,
    );
    let codes: Vec<_> = outcomes.iter().map(|it| it.as_ref().map(Failure::code)).collect();
    assert_eq!(codes, [None, None, Some(Code::Quota), None, None]);
    let message = &outcomes[2].as_ref().unwrap().message;
    assert!(message.contains("/hot/team ") && message.contains("100 bytes"), "{message}");
    assert_eq!(publish(&mut log, &[("/hot/team/z", 11)], true)[0].as_ref().unwrap().code(), Code::Quota);
    assert_eq!(publish(&mut log, &[("/hot/team/z", 5)], true), [None], "a shorter one may take its place");
    assert_eq!(log.rename("/hot/free", "/hot/team/free", false), Err(Code::Quota));
    assert_eq!(log.rename("/hot/team/x", "/hot/team/a/x", false), Ok(()), "within it anything moves");
    quota(&mut log, "/hot/team", 50, 0);
    assert_eq!(log.rename("/hot/team/a/x", "/hot/x", false), Ok(()), "what is over may go");
    check(&log.namespace);
}

#[test]
fn a_quota_counts_names_of_every_kind() {
    let mut log = Log::default();
    make(&mut log, "/hot/d").unwrap();
    quota(&mut log, "/hot/d", 0, 3);
    assert_eq!(make(&mut log, "/hot/d/1/2/3/4"), Err(Code::Quota), "all of a path or nothing");
    assert_eq!(log.stat("/hot/d").children, 0);
    assert_eq!(make(&mut log, "/hot/d/1"), Ok(()));
    assert_eq!(publish(&mut log, &[("/hot/d/f", 1)], false), [None]);
    let link =
        |target: &str| Op::Link(Link { source: "/hot/d/f".into(), target: target.into(), ..Link::default() });
    assert_eq!(log.try_apply(link("/hot/d/g")), Ok(()));
    assert_eq!(log.try_apply(link("/hot/d/h")), Err(Code::Quota));
    let symlink = MakeSymlink { path: "/hot/d/s".into(), target: "x".into(), ..MakeSymlink::default() };
    assert_eq!(log.try_apply(Op::MakeSymlink(symlink)), Err(Code::Quota));
    let session = log.open();
    assert_eq!(log.open_file(session, "/hot/d/new"), Err(Code::Quota));
    assert_eq!(log.remove("/hot/d/f", false), Ok(()));
    assert!(log.open_file(session, "/hot/d/new").is_ok());
    assert_eq!(log.namespace.usage(0, "/hot/d").unwrap().1.files_max, 3);
    check(&log.namespace);
}

#[test]
fn a_writer_meets_the_quota_when_it_commits_and_the_trash_when_it_comes_back() {
    let mut log = Log::default();
    make(&mut log, "/hot/d").unwrap();
    quota(&mut log, "/hot/d", 100, 0);
    let session = log.open();
    let first = log.reserve(session, 1);
    let inode = log.open_file(session, "/hot/d/f").unwrap().inode;
    let commit = |bytes| {
        let blocks = vec![block(first, 0, bytes)];
        Op::CommitFile(CommitFile { session, inode, bytes, blocks, ..CommitFile::default() })
    };
    assert_eq!(log.try_apply(commit(101)), Err(Code::Quota));
    assert_eq!(log.stat("/hot/d/f").bytes, 0);
    assert_eq!(log.try_apply(commit(100)), Ok(()));
    log.remove("/hot/d/f", false).unwrap();
    assert_eq!(publish(&mut log, &[("/hot/d/g", 1)], false), [None]);
    let back = Undelete { id: 1, target: String::new() };
    assert_eq!(log.try_apply(Op::Undelete(back)), Err(Code::Quota));
    check(&log.namespace);
}

#[test]
fn statfs_tells_the_narrowest_bound() {
    let mut log = Log::default();
    make(&mut log, "/hot/d/e").unwrap();
    publish(&mut log, &[("/hot/d/e/f", 30), ("/hot/g", 10)], false);
    let room = |log: &Log, path: &str| log.namespace.statfs(0, path, 3000).unwrap();
    assert_eq!((room(&log, "/hot/d").bytes_total, room(&log, "/hot/d").bytes_free), (1000, 960));
    quota(&mut log, "/hot/d", 100, 7);
    let below = room(&log, "/hot/d/e/f");
    assert_eq!((below.bytes_total, below.bytes_free, below.files, below.files_max), (100, 70, 2, 7));
    log.remove("/hot/g", false).unwrap();
    assert_eq!(room(&log, "/").bytes_free, 960, "the trash takes room too");
    log.empty_trash();
    assert_eq!(room(&log, "/").bytes_free, 970);
    // 30 bytes lie in three copies; what is still free holds half of itself in two.
    let two = SetSpace { name: "warm".into(), replicas: Some(2), ..SetSpace::default() };
    log.try_apply(Op::SetSpace(two)).unwrap();
    assert_eq!((room(&log, "/warm").bytes_total, room(&log, "/warm").bytes_free), (1500, (3000 - 90) / 2));
    publish(&mut log, &[("/warm/f", 100)], false);
    assert_eq!(room(&log, "/").bytes_free, (3000 - 90 - 200) / 3);
}

#[test]
fn a_namespace_has_a_policy_of_its_own() {
    let mut log = Log::default();
    make(&mut log, "/mine").unwrap();
    let set = |space: SetSpace| Op::SetSpace(SetSpace { name: "mine".into(), ..space });
    let policy = SetSpace {
        retention_ms: Some(5000),
        replicas: Some(5),
        key_domain: Some(9),
        undelete_ms: Some(7000),
        unit_log2: Some(14),
        ..SetSpace::default()
    };
    assert_eq!(log.try_apply(set(policy)), Ok(()));
    let space = log.namespace.space("mine").unwrap();
    assert_eq!((space.replicas, space.key_domain, space.unit_log2), (Replicas::MAX, 9, 14));
    assert_eq!((space.retention, space.undelete), (Some(Duration::from_secs(5)), Duration::from_secs(7)));
    let refused = [
        (SetSpace { replicas: Some(1), ..SetSpace::default() }, Code::Invalid),
        (SetSpace { replicas: Some(6), ..SetSpace::default() }, Code::Invalid),
        (SetSpace { unit_log2: Some(17), ..SetSpace::default() }, Code::Invalid),
    ];
    for (policy, code) in refused {
        assert_eq!(log.try_apply(set(policy)), Err(code));
    }
    make(&mut log, "/mine/d").unwrap();
    let keys = SetSpace { key_domain: Some(1), ..SetSpace::default() };
    assert_eq!(log.try_apply(set(keys)), Err(Code::NotEmpty));
    let forever = SetSpace { retention_ms: Some(0), ..SetSpace::default() };
    assert_eq!(log.try_apply(set(forever)), Ok(()));
    assert_eq!(log.namespace.space("mine").unwrap().retention, None);
    let none = SetSpace { name: "none".into(), ..SetSpace::default() };
    assert_eq!(log.try_apply(Op::SetSpace(none)), Err(Code::NotFound));
}
