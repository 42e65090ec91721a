//! Directories, moves and removal.

use novafs_namespace::{
    Code, DEPTH_MAX, Kind, ListAsk, MakeDirectory, Namespace, Op, Purge, PurgeTrash, Reply, STANDARD_SPACES,
    Sweep, Swept,
};

use crate::kit::{Log, check, done, file};

fn make(log: &mut Log, path: &str, parents: bool) -> Result<(), Code> {
    done(&log.apply(Op::MakeDirectory(MakeDirectory {
        path: path.into(),
        mode: 0o700,
        parents,
        ..MakeDirectory::default()
    })))
}

/// `/hot/a/b/one` (10 bytes), `/hot/a/two` (20), `/hot/three` (30).
fn small_tree() -> Log {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 3);
    let files = vec![
        file("/hot/a/b/one", first, 10),
        file("/hot/a/two", first + 1, 20),
        file("/hot/three", first + 2, 30),
    ];
    assert!(log.publish(session, files, false).iter().all(|outcome| outcome.failure.is_none()));
    log
}

#[test]
fn the_standard_namespaces_are_there_from_the_start() {
    let namespace = Namespace::default();
    let names: Vec<String> = namespace
        .list(&ListAsk { path: "/", ..ListAsk::default() })
        .unwrap()
        .entries
        .iter()
        .map(|entry| entry.name.to_string())
        .collect();
    assert_eq!(names, ["cold", "hot", "scratch", "warm"]);
    for standard in STANDARD_SPACES {
        let space = namespace.space(standard.name).unwrap();
        assert_eq!((space.replicas.get(), space.retention), (3, Some(standard.retention)));
    }
    let mut log = Log::default();
    assert_eq!(log.remove("/hot", true), Err(Code::Invalid), "they stay");
    assert_eq!(log.rename("/hot", "/warm/hot", false), Err(Code::Invalid));
}

#[test]
fn directories_are_made_one_by_one_or_with_parents() {
    let mut log = Log::default();
    assert_eq!(make(&mut log, "/hot/a/b", false), Err(Code::NotFound));
    assert_eq!(make(&mut log, "/hot/a/b", true), Ok(()));
    assert_eq!(make(&mut log, "/hot/a/b", true), Ok(()), "with parents it is content when it exists");
    assert_eq!(make(&mut log, "/hot/a/b", false), Err(Code::AlreadyExists));
    assert_eq!(make(&mut log, "/mine", false), Ok(()), "a namespace of the user's own");
    assert_eq!(log.namespace.space("mine").unwrap().retention, None);
    check(&log.namespace);
}

#[test]
fn a_moved_tree_takes_its_sums_along() {
    let mut log = small_tree();
    assert_eq!(log.rename("/hot/a", "/warm/moved", false), Ok(()));
    assert_eq!(log.namespace.stat(0, "/hot/a").unwrap_err().code(), Code::NotFound);
    assert_eq!(log.namespace.usage(0, "/warm").unwrap().0.bytes, 30);
    assert_eq!(log.namespace.usage(0, "/hot").unwrap().0.bytes, 30);
    assert_eq!(log.namespace.stat(0, "/warm/moved/b/one").unwrap().bytes, 10);
    check(&log.namespace);
}

#[test]
fn a_directory_is_never_moved_below_itself() {
    let mut log = small_tree();
    assert_eq!(log.rename("/hot/a", "/hot/a/b/c", false), Err(Code::Loop));
    assert_eq!(log.rename("/hot/a", "/hot/a/x", false), Err(Code::Loop));
    assert_eq!(log.rename("/hot/a", "/hot/a", false), Ok(()), "onto itself nothing happens");
    check(&log.namespace);
}

#[test]
fn a_move_over_an_entry_needs_replace_and_the_same_kind() {
    let mut log = small_tree();
    assert_eq!(log.rename("/hot/three", "/hot/a/two", false), Err(Code::AlreadyExists));
    assert_eq!(log.rename("/hot/three", "/hot/a", true), Err(Code::IsADirectory));
    assert_eq!(log.rename("/hot/a/b", "/hot/three", true), Err(Code::NotADirectory));
    make(&mut log, "/hot/full/x", true).unwrap();
    assert_eq!(log.rename("/hot/a", "/hot/full", true), Err(Code::NotEmpty));
    assert_eq!(log.namespace.orphans().count(), 0);
    assert_eq!(log.rename("/hot/three", "/hot/a/two", true), Ok(()));
    assert_eq!(log.namespace.stat(0, "/hot/a/two").unwrap().bytes, 30);
    assert_eq!(log.namespace.orphans().count(), 0, "the replaced file is in the trash");
    assert_eq!(log.rename("/hot/a", "/hot/full/x", true), Ok(()), "an empty directory makes room");
    assert_eq!(log.namespace.stat(0, "/hot/full/x/b").unwrap().kind, Kind::Directory);
    check(&log.namespace);
}

#[test]
fn no_path_grows_deeper_than_the_limit_by_moving() {
    let mut log = Log::default();
    let deep = |top: &str, levels: usize| format!("{top}{}", "/x".repeat(levels));
    make(&mut log, &deep("/hot", DEPTH_MAX - 1), true).unwrap();
    make(&mut log, &deep("/warm", 1), true).unwrap();
    assert_eq!(log.rename("/warm/x", &deep("/hot", DEPTH_MAX), false), Err(Code::Invalid));
    make(&mut log, &deep("/cold", 10), true).unwrap();
    assert_eq!(
        log.rename("/cold/x", &format!("{}/y", deep("/hot", DEPTH_MAX - 10)), false),
        Err(Code::Invalid)
    );
    assert_eq!(log.rename("/cold/x", &format!("{}/y", deep("/hot", DEPTH_MAX - 11)), false), Ok(()));
    check(&log.namespace);
}

#[test]
fn a_removed_tree_is_out_of_sight_at_once_and_swept_in_bounded_steps() {
    let mut log = small_tree();
    assert_eq!(log.remove("/hot/a", false), Err(Code::NotEmpty));
    assert_eq!(log.remove("/hot/a", true), Ok(()));
    assert_eq!(log.namespace.stat(0, "/hot/a/b/one").unwrap_err().code(), Code::NotFound);
    assert_eq!(log.namespace.usage(0, "/hot").unwrap().0.bytes, 30);
    check(&log.namespace);
    assert_eq!(log.try_apply(Op::PurgeTrash(PurgeTrash { id: 0 })), Ok(()));
    log.apply(Op::Purge(Purge { limit: 10, now_ms: 0, early: false }));
    let mut steps = 0;
    loop {
        steps += 1;
        let Some(Reply::Swept(Swept { entries, more })) = log.apply(Op::Sweep(Sweep { limit: 1 })).result
        else {
            panic!("a sweep answers what it did")
        };
        check(&log.namespace);
        assert_eq!(entries, 1);
        if !more {
            break;
        }
    }
    assert_eq!(steps, 4, "a, b and two files");
    assert_eq!(log.namespace.orphans().count(), 2);
    assert_eq!(log.remove("/hot/three", false), Ok(()));
    log.empty_trash();
    assert_eq!(log.namespace.orphans().count(), 3);
    assert!(!log.namespace.has_sweep());
}

#[test]
fn a_file_on_the_way_is_said_to_be_one() {
    let log = small_tree();
    let code = |path: &str| log.namespace.stat(0, path).unwrap_err().code();
    assert_eq!(code("/hot/three/x"), Code::NotADirectory);
    assert_eq!(code("/hot/none/x"), Code::NotFound);
    assert_eq!(
        log.namespace.list(&ListAsk { path: "/hot/three", ..ListAsk::default() }).unwrap_err().code(),
        Code::NotADirectory
    );
    assert_eq!(log.namespace.open(0, "/hot/a").unwrap_err().code(), Code::IsADirectory);
}
