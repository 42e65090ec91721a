//! Integration tests of the key domains.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use nova_keys::{
    Answer, Command, Create, DUE_MAX, DomainState, Drop, Due, Keys, Op, Rewrap, Rotate, VersionState, plan,
};
use nova_units::Timestamp;
use proptest::prelude::*;

const DAY_MS: u64 = 86_400_000;
const HALF_YEAR: Duration = Duration::from_secs(180 * 86_400);

fn create(domain: u32, name: &str) -> Op {
    let wrapped = vec![u8::try_from(domain).unwrap_or(0), 1];
    Op::Create(Create { domain, name: name.into(), version: 1, root_version: 1, wrapped })
}

fn rotate(domain: u32, version: u32, root_version: u32) -> Op {
    Op::Rotate(Rotate { domain, version, root_version, wrapped: vec![9, 9] })
}

fn apply_at(keys: &mut Keys, at_ms: u64, op: Op) -> Answer {
    keys.apply(&Command { at_ms, op: Some(op) })
}

fn apply(keys: &mut Keys, op: Op) -> Answer {
    apply_at(keys, 1, op)
}

fn done(domain: u32, version: u32) -> Answer {
    Answer::Done { domain, version }
}

#[test]
fn a_rotated_domain_keeps_its_old_versions_for_reading() {
    let mut keys = Keys::default();
    assert_eq!(apply(&mut keys, create(1, "default")), done(1, 1));
    assert_eq!(apply(&mut keys, rotate(1, 2, 1)), done(1, 2));
    let domain = keys.domain(1).unwrap();
    assert_eq!(domain.current().unwrap().0, 2);
    assert_eq!(domain.state_of(1), Some(VersionState::Readable));
    assert_eq!(domain.state_of(2), Some(VersionState::Current));
    assert_eq!(domain.state_of(3), None);
    let before = keys.clone();
    assert_eq!(apply(&mut keys, rotate(1, 2, 1)), Answer::Stale, "said twice, made once");
    assert!(matches!(apply(&mut keys, rotate(5, 2, 1)), Answer::Refused(_)));
    assert_eq!(keys, before);
}

#[test]
fn a_dropped_domain_has_no_wrapped_key_left_and_never_comes_back() {
    let mut keys = Keys::default();
    apply(&mut keys, create(1, "default"));
    apply(&mut keys, create(2, "secret"));
    apply(&mut keys, rotate(2, 2, 1));
    assert_eq!(apply_at(&mut keys, 77, Op::Drop(Drop { domain: 2 })), done(2, 2));
    let dropped = keys.domain(2).unwrap();
    assert_eq!(dropped.state, DomainState::Dropped { at: Timestamp(77), last: 2 });
    assert_eq!((dropped.versions().count(), dropped.state_of(1)), (0, Some(VersionState::Dropped)));
    assert!(!keys.encode_to_vec().windows(2).any(|bytes| bytes == [9, 9]), "its wrapped bytes are gone");
    for op in [Op::Drop(Drop { domain: 2 }), rotate(2, 3, 1), create(3, "secret")] {
        assert!(matches!(apply(&mut keys, op.clone()), Answer::Refused(_)), "{op:?}");
    }
    assert_eq!(apply(&mut keys, create(2, "other")), Answer::Stale, "an id is used once");
    assert_eq!(apply(&mut keys, create(3, "other")), done(3, 1));
}

#[test]
fn a_rotation_is_due_after_180_days_and_once() {
    let mut keys = Keys::default();
    assert_eq!(plan(&keys, Timestamp(0), HALF_YEAR, 1), [Due::CreateDefault]);
    apply_at(&mut keys, 1000, create(1, "default"));
    assert_eq!(plan(&keys, Timestamp(999 + 180 * DAY_MS), HALF_YEAR, 1), []);
    let now = 1000 + 180 * DAY_MS;
    assert_eq!(plan(&keys, Timestamp(now), HALF_YEAR, 1), [Due::Rotate { domain: 1, version: 2 }]);
    assert_eq!(apply_at(&mut keys, now, rotate(1, 2, 1)), done(1, 2));
    assert_eq!(plan(&keys, Timestamp(now), HALF_YEAR, 1), []);
    assert_eq!(plan(&keys, Timestamp(0), HALF_YEAR, 1), [], "a clock that went back makes nothing due");
    apply_at(&mut keys, now, Op::Drop(Drop { domain: 1 }));
    assert_eq!(plan(&keys, Timestamp(u64::MAX), HALF_YEAR, 9), [], "a dropped domain needs nothing");
}

#[test]
fn a_new_root_key_has_every_version_wrapped_anew_and_nothing_else_changed() {
    let mut keys = Keys::default();
    apply(&mut keys, create(1, "default"));
    for version in 2..=30 {
        apply(&mut keys, rotate(1, version, 1));
    }
    let due = plan(&keys, Timestamp(1), HALF_YEAR, 2);
    assert_eq!((due.len(), due[0]), (DUE_MAX, Due::Rewrap { domain: 1, version: 1 }));
    let mut turns = 0;
    loop {
        let due = plan(&keys, Timestamp(1), HALF_YEAR, 2);
        if due.is_empty() {
            break;
        }
        for one in due {
            let Due::Rewrap { domain, version } = one else { panic!("{one:?}") };
            let rewrap = Rewrap { domain, version, from_root_version: 1, root_version: 2, wrapped: vec![7] };
            assert_eq!(apply(&mut keys, Op::Rewrap(rewrap.clone())), done(1, version));
            assert_eq!(apply(&mut keys, Op::Rewrap(rewrap)), Answer::Stale);
        }
        turns += 1;
    }
    assert_eq!(turns, 2);
    let domain = keys.domain(1).unwrap();
    assert!(domain.versions().all(|(_, key)| (key.root_version, &key.wrapped[..]) == (2, &[7])));
    assert_eq!(domain.current().unwrap().0, 30);
}

#[test]
fn names_and_sizes_have_limits() {
    let mut keys = Keys::default();
    for name in ["", "Upper", "with space", &"x".repeat(64), "späth", "a/b"] {
        assert!(matches!(apply(&mut keys, create(1, name)), Answer::Refused(_)), "{name:?}");
    }
    for wrapped in [vec![], vec![0; 1025]] {
        let create = Create { domain: 1, name: "a".into(), version: 1, root_version: 1, wrapped };
        assert!(matches!(apply(&mut keys, Op::Create(create)), Answer::Refused(_)));
    }
    assert!(matches!(keys.apply(&Command { at_ms: 1, op: None }), Answer::Refused(_)));
    assert_eq!(keys.revision(), 0);
}

fn any_op() -> impl Strategy<Value = Op> {
    let wrapped = prop::collection::vec(any::<u8>(), 0..4);
    prop_oneof![
        (0..5_u32, 0..6_u8, 0..3_u32, wrapped.clone()).prop_map(|(domain, name, version, wrapped)| {
            Op::Create(Create { domain, name: format!("d{name}"), version, root_version: 1, wrapped })
        }),
        (0..5_u32, 0..5_u32, 0..3_u32, wrapped.clone()).prop_map(
            |(domain, version, root_version, wrapped)| {
                Op::Rotate(Rotate { domain, version, root_version, wrapped })
            }
        ),
        (0..5_u32, 0..5_u32, 0..3_u32, 0..4_u32, wrapped).prop_map(
            |(domain, version, from_root_version, root_version, wrapped)| {
                Op::Rewrap(Rewrap { domain, version, from_root_version, root_version, wrapped })
            }
        ),
        (0..5_u32).prop_map(|domain| Op::Drop(Drop { domain })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn snapshots_read_back_and_what_is_refused_changes_nothing(steps in prop::collection::vec(any_op(), 0..60)) {
        let mut keys = Keys::default();
        let mut dropped = std::collections::BTreeSet::new();
        for op in steps {
            let before = keys.clone();
            match apply(&mut keys, op) {
                Answer::Done { domain, .. } => prop_assert!(!dropped.contains(&domain)),
                _ => prop_assert!(before.iter().eq(keys.iter()) && before.revision() == keys.revision()),
            }
            dropped.extend(keys.iter().filter(|(_, it)| it.current().is_none()).map(|(id, _)| id));
            for (_, domain) in keys.iter() {
                let current = domain.versions().filter(|(version, _)| {
                    domain.state_of(*version) == Some(VersionState::Current)
                });
                prop_assert_eq!(current.count(), usize::from(domain.current().is_some()));
            }
            prop_assert_eq!(&Keys::decode(&keys.encode_to_vec()).unwrap(), &keys);
        }
    }

    #[test]
    fn every_plan_is_accepted_by_the_state_it_was_made_for(
        steps in prop::collection::vec(any_op(), 0..40), now in 0..3_u64, root_version in 1..5_u32,
    ) {
        let mut keys = Keys::default();
        for op in steps {
            apply(&mut keys, op);
        }
        for due in plan(&keys, Timestamp(now), Duration::from_millis(1), root_version) {
            let (op, version) = match due {
                Due::CreateDefault => (create(1, "default"), 1),
                Due::Rotate { domain, version } => (rotate(domain, version, root_version), version),
                Due::Rewrap { domain, version } => {
                    let from_root_version =
                        keys.domain(domain).unwrap().versions().find(|it| it.0 == version).unwrap().1.root_version;
                    let wrapped = vec![4];
                    (Op::Rewrap(Rewrap { domain, version, from_root_version, root_version, wrapped }), version)
                }
            };
            let answer = apply_at(&mut keys, now, op);
            prop_assert!(matches!(answer, Answer::Done { version: made, .. } if made == version), "{:?}", answer);
        }
    }

    #[test]
    fn decode_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize) {
        let _ = Keys::decode(&bytes);
        let mut keys = Keys::default();
        apply(&mut keys, create(1, "default"));
        apply(&mut keys, rotate(1, 2, 1));
        let mut sound = keys.encode_to_vec();
        let at = cut % sound.len();
        sound[at] ^= bytes.pop().unwrap_or(1).max(1);
        if let Ok(read) = Keys::decode(&sound) {
            prop_assert_eq!(Keys::decode(&read.encode_to_vec()).unwrap(), read);
        }
    }
}
