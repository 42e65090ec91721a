//! A repeated request is answered again, not applied again.

use novafs_namespace::{
    ANSWERS_PER_CLIENT_MAX, CLIENTS_MAX, Code, MakeDirectory, Op, OpenSession, Reply, ReserveBlocks,
};

use crate::kit::{Log, done};

fn open() -> Op {
    Op::OpenSession(OpenSession { lease_ms: 0 })
}

#[test]
fn a_repeated_request_gets_the_answer_it_had() {
    let mut log = Log::default();
    let first = log.apply_from(7, 1, open());
    let make = Op::MakeDirectory(MakeDirectory {
        path: "/hot/a".into(),
        mode: 0,
        parents: false,
        ..MakeDirectory::default()
    });
    assert_eq!(done(&log.apply_from(7, 2, make.clone())), Ok(()));
    assert_eq!(
        done(&log.apply_from(7, 2, make.clone())),
        Ok(()),
        "the directory was made by this very request"
    );
    assert_eq!(done(&log.apply_from(7, 3, make.clone())), Err(Code::AlreadyExists));
    assert_eq!(
        done(&log.apply_from(8, 2, make)),
        Err(Code::AlreadyExists),
        "another client's numbers are its own"
    );
    assert_eq!(log.apply_from(7, 1, open()), first);
    assert_eq!(log.namespace.sessions().count(), 1);
}

#[test]
fn a_reservation_that_found_no_group_is_tried_again_under_the_same_number() {
    let mut log = Log::default();
    let session = log.open();
    let reserve = |groups| Op::ReserveBlocks(ReserveBlocks { session, count: 4, groups });
    assert_eq!(done(&log.apply_from(7, 1, reserve(vec![]))), Err(Code::NoGroups));
    assert_eq!(done(&log.apply_from(7, 1, reserve(vec![]))), Err(Code::NoGroups));
    let given = log.apply_from(7, 1, reserve(vec![1]));
    assert!(matches!(given.result, Some(Reply::BlocksReserved(_))), "a group is writable by now: {given:?}");
    assert_eq!(log.apply_from(7, 1, reserve(vec![2])), given, "given once");
    assert_eq!(log.apply_from(7, 1, reserve(vec![])), given, "also when no group is writable again");
    assert_eq!(log.namespace.session(nova_units::SessionId(session)).unwrap().outstanding, 4);
}

#[test]
fn requests_under_way_together_may_come_in_any_order_within_the_window() {
    let mut log = Log::default();
    let window = ANSWERS_PER_CLIENT_MAX as u64;
    for sequence in (1..=window).rev() {
        assert_eq!(done(&log.apply_from(7, sequence, open())), Ok(()));
    }
    assert_eq!(log.namespace.sessions().count(), ANSWERS_PER_CLIENT_MAX);
    log.apply_from(7, window + 1, open());
    assert_eq!(
        done(&log.apply_from(7, 1, open())),
        Err(Code::Invalid),
        "too old to know: refused, not applied"
    );
    assert_eq!(log.namespace.sessions().count(), ANSWERS_PER_CLIENT_MAX + 1);
}

#[test]
fn the_client_silent_longest_is_forgotten_first() {
    let mut log = Log::default();
    let make = |path: &str| {
        Op::MakeDirectory(MakeDirectory {
            path: path.into(),
            mode: 0,
            parents: false,
            ..MakeDirectory::default()
        })
    };
    log.apply_from(1, 1, make("/hot/one"));
    log.apply_from(2, 1, make("/hot/two"));
    for client in 3..=CLIENTS_MAX as u64 {
        log.apply_from(client, 1, make("/hot"));
    }
    log.apply_from(1, 2, make("/hot"));
    log.apply_from(999_999, 1, make("/hot"));
    assert!(log.namespace.remembered(1, 1).is_some(), "client 1 was heard lately");
    assert!(log.namespace.remembered(2, 1).is_none(), "client 2 made room");
}
