//! Names and attributes as a mounted file system needs them.

use novafs_namespace::{
    Code, Kind, LINKS_MAX, Link, ListAsk, MakeDirectory, MakeSymlink, Only, Op, Remove, RemoveXattr, Rename,
    SetAttributes, SetSpace, SetXattr, XATTR_BYTES_MAX,
};

use crate::kit::{Log, check};

fn make(log: &mut Log, path: &str) {
    let make = MakeDirectory { path: path.into(), parents: true, ..MakeDirectory::default() };
    log.try_apply(Op::MakeDirectory(make)).unwrap();
}

fn link(log: &mut Log, source: &str, target: &str) -> Result<(), Code> {
    let link = Link { source: source.into(), target: target.into(), ..Link::default() };
    log.try_apply(Op::Link(link))
}

#[test]
fn a_path_may_begin_at_an_inode() {
    let mut log = Log::default();
    make(&mut log, "/hot/a/b");
    let file = log.put("/hot/a/b/f", 10);
    let a = log.stat("/hot/a").inode.0;
    assert_eq!(log.namespace.stat(a, "b/f").unwrap().inode, file);
    assert_eq!(log.namespace.stat(file.0, "").unwrap().bytes, 10);
    assert_eq!(log.namespace.path(file).unwrap(), "/hot/a/b/f");
    assert_eq!(log.namespace.stat(a, "/b").unwrap_err().code(), Code::Invalid);
    assert_eq!(log.namespace.stat(999, "").unwrap_err().code(), Code::Stale);
    assert_eq!(log.namespace.stat(file.0, "x").unwrap_err().code(), Code::NotADirectory);
    let below =
        |path: &str| MakeDirectory { base: a, path: path.into(), uid: 7, gid: 8, ..MakeDirectory::default() };
    assert_eq!(log.try_apply(Op::MakeDirectory(below("c"))), Ok(()));
    let made = log.stat("/hot/a/c");
    assert_eq!((made.uid, made.gid), (7, 8));
    let unnamed = Remove { base: a, ..Remove::default() };
    assert_eq!(log.try_apply(Op::Remove(unnamed)), Err(Code::Invalid), "an entry is removed by its name");
    let moved = Rename { source_base: a, source: "c".into(), target: "/hot/c".into(), ..Rename::default() };
    assert_eq!(log.try_apply(Op::Rename(moved)), Ok(()));
    log.remove("/hot/a", true).unwrap();
    assert_eq!(
        log.try_apply(Op::MakeDirectory(below("d"))),
        Err(Code::NotFound),
        "nothing is made in the trash"
    );
    check(&log.namespace);
}

#[test]
fn names_of_a_file_share_its_bytes_and_the_first_counts_them() {
    let mut log = Log::default();
    make(&mut log, "/hot/a");
    make(&mut log, "/warm/b");
    let id = log.put("/hot/a/one", 10);
    assert_eq!(link(&mut log, "/hot/a/one", "/warm/b/two"), Ok(()));
    assert_eq!(link(&mut log, "/hot/a/one", "/warm/b/two"), Err(Code::AlreadyExists));
    assert_eq!(link(&mut log, "/hot/a", "/hot/x"), Err(Code::IsADirectory));
    let (one, two) = (log.stat("/hot/a/one"), log.stat("/warm/b/two"));
    assert_eq!((one.inode, two.inode, two.links), (id, id, 2));
    assert_eq!((&*two.name, &*one.name), ("two", "one"));
    assert!(two.cookie > one.cookie);
    let bytes = |log: &Log, path: &str| log.namespace.usage(0, path).unwrap().0.bytes;
    assert_eq!((bytes(&log, "/hot"), bytes(&log, "/warm")), (10, 0));
    assert_eq!(log.rename("/warm/b/two", "/warm/three", false), Ok(()));
    assert_eq!(
        log.rename("/warm/three", "/hot/a/one", true),
        Ok(()),
        "two names of one file: nothing happens"
    );
    assert!(log.namespace.stat(0, "/warm/three").is_ok());
    check(&log.namespace);
    assert_eq!(log.remove("/hot/a/one", false), Ok(()));
    assert_eq!((bytes(&log, "/hot"), bytes(&log, "/warm")), (0, 10), "the next name counts them");
    assert_eq!(log.stat("/warm/three").cookie, two.cookie, "and keeps its place in a listing");
    assert!(log.namespace.list_trash("", 0, 0).unwrap().items.is_empty(), "it has a name left");
    check(&log.namespace);
    assert_eq!(log.remove("/warm/three", false), Ok(()));
    assert_eq!(log.namespace.list_trash("", 0, 0).unwrap().items.len(), 1);
    assert_eq!(log.namespace.entry(id, 0).unwrap().1.links, 0);
    check(&log.namespace);
}

#[test]
fn a_file_has_a_limited_number_of_names() {
    let mut log = Log::default();
    log.put("/hot/f", 1);
    for number in 1..LINKS_MAX {
        link(&mut log, "/hot/f", &format!("/hot/l{number}")).unwrap();
    }
    assert_eq!(link(&mut log, "/hot/f", "/hot/more"), Err(Code::TooManyLinks));
    check(&log.namespace);
}

#[test]
fn a_removed_tree_with_a_name_of_a_file_leaves_the_file_to_its_other_names() {
    let mut log = Log::default();
    make(&mut log, "/hot/a/b");
    log.put("/hot/a/b/f", 10);
    link(&mut log, "/hot/a/b/f", "/hot/kept").unwrap();
    log.remove("/hot/a", true).unwrap();
    check(&log.namespace);
    log.empty_trash();
    check(&log.namespace);
    let kept = log.stat("/hot/kept");
    assert_eq!((kept.bytes, kept.links), (10, 1));
    assert_eq!(log.namespace.usage(0, "/hot").unwrap().0.bytes, 10);
    assert_eq!(log.namespace.orphans().count(), 0);
}

#[test]
fn symbolic_links_say_what_they_were_told() {
    let mut log = Log::default();
    let make = |path: &str, target: &str| {
        Op::MakeSymlink(MakeSymlink { path: path.into(), target: target.into(), ..MakeSymlink::default() })
    };
    assert_eq!(log.try_apply(make("/hot/s", "../any/where")), Ok(()));
    let view = log.stat("/hot/s");
    assert_eq!(
        (view.kind, view.bytes, view.link_target.as_deref()),
        (Kind::Symlink, 12, Some("../any/where"))
    );
    assert_eq!(log.try_apply(make("/hot/s", "x")), Err(Code::AlreadyExists));
    assert_eq!(log.try_apply(make("/hot/t", "")), Err(Code::Invalid));
    assert_eq!(log.try_apply(make("/hot/t", &"x".repeat(4096))), Err(Code::TooLarge));
    assert_eq!(log.namespace.stat(0, "/hot/s/x").unwrap_err().code(), Code::NotADirectory);
    assert_eq!(log.namespace.open(0, "/hot/s").unwrap_err().code(), Code::Invalid);
    assert_eq!(link(&mut log, "/hot/s", "/hot/s2"), Ok(()), "a link may have several names too");
    assert_eq!(log.remove("/hot/s", false), Ok(()));
    assert_eq!(log.remove("/hot/s2", false), Ok(()));
    assert!(log.namespace.list_trash("", 0, 0).unwrap().items.is_empty());
    check(&log.namespace);
}

#[test]
fn entries_swap_places_and_are_not_replaced_against_the_will() {
    let mut log = Log::default();
    make(&mut log, "/hot/d/e");
    make(&mut log, "/warm");
    log.put("/warm/f", 10);
    let exchange = |source: &str, target: &str| {
        let (source, target) = (source.into(), target.into());
        Op::Rename(Rename { source, target, exchange: true, ..Rename::default() })
    };
    assert_eq!(log.try_apply(exchange("/hot/d", "/warm/f")), Ok(()));
    assert_eq!((log.stat("/hot/d").kind, log.stat("/warm/f").kind), (Kind::File, Kind::Directory));
    assert!(log.namespace.stat(0, "/warm/f/e").is_ok());
    assert_eq!(log.namespace.usage(0, "/hot").unwrap().0.bytes, 10);
    check(&log.namespace);
    assert_eq!(log.try_apply(exchange("/hot/d", "/hot/none")), Err(Code::NotFound));
    assert_eq!(log.try_apply(exchange("/warm/f", "/warm/f/e")), Err(Code::Loop));
    assert_eq!(log.try_apply(exchange("/warm/f/e", "/warm/f")), Err(Code::Loop));
    log.put("/hot/g", 1);
    let no_replace = Rename {
        source: "/hot/g".into(),
        target: "/hot/d".into(),
        replace: true,
        no_replace: true,
        ..Rename::default()
    };
    assert_eq!(log.try_apply(Op::Rename(no_replace)), Err(Code::AlreadyExists));
    assert_eq!(log.try_apply(exchange("/hot/g", "/hot/d")), Ok(()), "within one directory");
    check(&log.namespace);
}

#[test]
fn other_keys_ask_for_a_copy() {
    let mut log = Log::default();
    make(&mut log, "/secret");
    let keys = SetSpace { name: "secret".into(), key_domain: Some(2), ..SetSpace::default() };
    assert_eq!(log.try_apply(Op::SetSpace(keys)), Ok(()));
    log.put("/hot/f", 1);
    assert_eq!(log.rename("/hot/f", "/secret/f", false), Err(Code::CrossDomain));
    assert_eq!(link(&mut log, "/hot/f", "/secret/f"), Err(Code::CrossDomain));
    check(&log.namespace);
}

#[test]
fn unlink_and_rmdir_take_their_own_kind_only() {
    let mut log = Log::default();
    make(&mut log, "/hot/d");
    log.put("/hot/f", 1);
    let remove = |path: &str, only: Only| {
        Op::Remove(Remove { path: path.into(), only: only.into(), ..Remove::default() })
    };
    assert_eq!(log.try_apply(remove("/hot/d", Only::NotDirectory)), Err(Code::IsADirectory));
    assert_eq!(log.try_apply(remove("/hot/f", Only::Directory)), Err(Code::NotADirectory));
    assert_eq!(log.try_apply(remove("/hot/d", Only::Directory)), Ok(()));
    assert_eq!(log.try_apply(remove("/hot/f", Only::NotDirectory)), Ok(()));
}

#[test]
fn attributes_change_one_by_one_and_the_time_of_change_with_them() {
    let mut log = Log::default();
    log.put("/hot/f", 1);
    let before = log.stat("/hot/f");
    let set = SetAttributes {
        path: "/hot/f".into(),
        mode: Some(0o104_755),
        gid: Some(5),
        modified_ns: Some(123_456_789),
        ..SetAttributes::default()
    };
    assert_eq!(log.try_apply(Op::SetAttributes(set)), Ok(()));
    let after = log.stat("/hot/f");
    assert_eq!((after.mode, after.uid, after.gid), (0o4755, 0, 5), "kind bits are no permissions");
    assert_eq!((after.modified_ns, after.accessed_ns), (123_456_789, before.accessed_ns));
    assert!(after.changed_ns > before.changed_ns);
    assert_eq!(after.created_ns, before.created_ns);
}

#[test]
fn extended_attributes_have_their_limits() {
    let mut log = Log::default();
    log.put("/hot/f", 1);
    let set = |name: &str, bytes: usize, create_only, replace_only| {
        Op::SetXattr(SetXattr {
            path: "/hot/f".into(),
            name: name.into(),
            value: vec![1; bytes],
            create_only,
            replace_only,
            ..SetXattr::default()
        })
    };
    assert_eq!(log.try_apply(set("user.a", 5, false, true)), Err(Code::NoData));
    assert_eq!(log.try_apply(set("user.a", 5, true, false)), Ok(()));
    assert_eq!(log.try_apply(set("user.a", 5, true, false)), Err(Code::AlreadyExists));
    assert_eq!(log.try_apply(set("user.a", XATTR_BYTES_MAX - 6, false, true)), Ok(()));
    assert_eq!(log.try_apply(set("user.a", XATTR_BYTES_MAX - 5, false, true)), Err(Code::TooLarge));
    assert_eq!(log.try_apply(set("user.b", 0, false, false)), Err(Code::TooLarge), "together");
    assert_eq!(log.try_apply(set(&"x".repeat(256), 0, false, false)), Err(Code::InvalidName));
    let remove = |name: &str| {
        Op::RemoveXattr(RemoveXattr { path: "/hot/f".into(), name: name.into(), ..RemoveXattr::default() })
    };
    assert_eq!(log.try_apply(remove("user.b")), Err(Code::NoData));
    let (inode, _) = log.namespace.lookup(0, "/hot/f").unwrap();
    assert_eq!(inode.xattrs().map(|(name, _)| name).collect::<Vec<_>>(), ["user.a"]);
    assert_eq!(log.try_apply(remove("user.a")), Ok(()));
    assert!(log.namespace.lookup(0, "/hot/f").unwrap().0.extra.is_none(), "what nobody has costs nothing");
}

#[test]
fn a_listing_goes_on_where_it_was_when_entries_were_removed() {
    let mut log = Log::default();
    for number in 0..10 {
        log.put(&format!("/hot/f{}", 9 - number), 1);
    }
    let page = |log: &Log, after| {
        let ask = ListAsk { path: "/hot", after_cookie: Some(after), limit: 4, ..ListAsk::default() };
        log.namespace.list(&ask).unwrap()
    };
    let (mut after, mut removed) = (0, Vec::new());
    loop {
        let page = page(&log, after);
        for entry in &page.entries {
            after = entry.cookie;
            removed.push(entry.name.to_string());
            log.remove(&format!("/hot/{}", entry.name), false).unwrap();
        }
        if !page.more {
            break;
        }
    }
    assert_eq!(removed, (0..10).rev().map(|number| format!("f{number}")).collect::<Vec<_>>());
    assert_eq!(log.stat("/hot").children, 0);
}

#[test]
fn a_page_with_blocks_spares_a_question_a_file_and_stays_small() {
    let mut log = Log::default();
    let session = log.open();
    let first = log.reserve(session, 4000);
    let files = (0..4000).map(|n| crate::kit::file(&format!("/hot/file-{n:04}"), first + n, 1)).collect();
    log.publish(session, files, false);
    let ask = ListAsk { path: "/hot", with_blocks: true, ..ListAsk::default() };
    let page = log.namespace.list(&ask).unwrap();
    assert!(page.more && (900..1200).contains(&page.entries.len()), "{} entries", page.entries.len());
    assert_eq!(page.maps.len(), page.entries.len());
    assert!(page.maps.iter().all(|map| map.blocks.len() == 1 && !map.left_out));
}
