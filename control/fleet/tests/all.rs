//! Integration tests of the fleet.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use nova_fleet::{
    Answer, Command, Drain, Event, FAILED_AFTER, Fleet, Heartbeats, NodeState, Observe, Op, Register,
    SILENT_AFTER, plan, storms,
};
use nova_units::{BootId, NodeId};
use proptest::prelude::*;

fn register(name: &str, boot: u64) -> Op {
    Op::Register(Register {
        name: name.into(),
        roles: vec!["storage".into()],
        addr: "127.0.0.1:7000".into(),
        boot,
        zone: "a".into(),
    })
}

fn apply(fleet: &mut Fleet, op: Op) -> Answer {
    fleet.apply(&Command { at_ms: 1, op: Some(op) })
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `count` hosts, all heard at 100 s and ready.
fn fleet(count: u64) -> (Fleet, Heartbeats) {
    let (mut fleet, mut heartbeats) = (Fleet::default(), Heartbeats::default());
    for host in 1..=count {
        apply(&mut fleet, register(&format!("host{host}"), host));
        heartbeats.beat(NodeId(host), BootId(host), secs(100));
    }
    carry_out(&mut fleet, &mut heartbeats, secs(100));
    (fleet, heartbeats)
}

fn carry_out(fleet: &mut Fleet, heartbeats: &mut Heartbeats, now: Duration) {
    for op in plan(fleet, heartbeats, now) {
        let answer = apply(fleet, op.clone());
        assert!(
            matches!(answer, Answer::Changed(_)),
            "{op:?} was planned on this state and answered {answer:?}"
        );
    }
}

fn state(fleet: &Fleet, node: u64) -> NodeState {
    fleet.node(NodeId(node)).unwrap().state
}

#[test]
fn a_drain_lasts_over_restarts() {
    let (mut fleet, _) = fleet(1);
    let drain = |on| Op::Drain(Drain { node: 1, on });
    assert_eq!(apply(&mut fleet, drain(true)), Answer::Changed(NodeState::Ready));
    let once = fleet.clone();
    apply(&mut fleet, drain(true));
    assert_eq!(fleet, once, "the same again changes nothing");
    assert_eq!(Fleet::decode(&fleet.encode_to_vec()).unwrap(), fleet);
    apply(&mut fleet, register("host1", 2));
    assert!(fleet.node(NodeId(1)).unwrap().draining.is_some());
    apply(&mut fleet, drain(false));
    assert!(fleet.node(NodeId(1)).unwrap().draining.is_none());
    assert!(matches!(apply(&mut fleet, Op::Drain(Drain { node: 9, on: true })), Answer::Refused(_)));
}

#[test]
fn a_host_is_known_by_its_name_and_registers_as_often_as_it_likes() {
    let mut fleet = Fleet::default();
    assert_eq!(apply(&mut fleet, register("a", 1)), Answer::Registered(NodeId(1)));
    assert_eq!(apply(&mut fleet, register("b", 2)), Answer::Registered(NodeId(2)));
    let before = fleet.clone();
    assert_eq!(apply(&mut fleet, register("a", 1)), Answer::Registered(NodeId(1)));
    assert_eq!(fleet, before);
    assert_eq!(apply(&mut fleet, register("a", 9)), Answer::Registered(NodeId(1)));
    assert_eq!(fleet.node(NodeId(1)).unwrap().boot, BootId(9));
    assert!(matches!(apply(&mut fleet, register("", 1)), Answer::Refused(_)));
    let nowhere = Op::Register(Register { addr: "nowhere".into(), ..Register::default() });
    assert!(matches!(apply(&mut fleet, nowhere), Answer::Refused(_)));
}

#[test]
fn a_silent_host_is_marked_after_5_s_and_failed_after_30() {
    let (mut fleet, mut heartbeats) = fleet(3);
    assert_eq!(state(&fleet, 1), NodeState::Ready);
    let beat_others = |heartbeats: &mut Heartbeats, now| {
        heartbeats.beat(NodeId(2), BootId(2), now);
        heartbeats.beat(NodeId(3), BootId(3), now);
    };
    let mut at = |fleet: &mut Fleet, now| {
        beat_others(&mut heartbeats, now);
        carry_out(fleet, &mut heartbeats, now);
        state(fleet, 1)
    };
    assert_eq!(at(&mut fleet, secs(100) + SILENT_AFTER), NodeState::Ready);
    assert_eq!(at(&mut fleet, secs(106)), NodeState::Silent);
    assert_eq!(at(&mut fleet, secs(100) + FAILED_AFTER), NodeState::Silent);
    assert_eq!(at(&mut fleet, secs(131)), NodeState::Failed);
    assert_eq!(state(&fleet, 2), NodeState::Ready);
    heartbeats.beat(NodeId(1), BootId(1), secs(140));
    beat_others(&mut heartbeats, secs(140));
    carry_out(&mut fleet, &mut heartbeats, secs(140));
    assert_eq!(state(&fleet, 1), NodeState::Ready, "it came back");
}

#[test]
fn a_new_leader_gives_every_host_its_full_time() {
    let (mut fleet, _) = fleet(3);
    let mut fresh = Heartbeats::default();
    carry_out(&mut fleet, &mut fresh, secs(1000));
    assert!((1..=3).all(|host| state(&fleet, host) == NodeState::Ready));
    carry_out(&mut fleet, &mut fresh, secs(1000) + SILENT_AFTER);
    assert!((1..=3).all(|host| state(&fleet, host) == NodeState::Ready));
}

#[test]
fn when_a_fifth_of_a_zone_falls_silent_at_once_nobody_is_failed() {
    let (mut fleet, mut heartbeats) = fleet(10);
    for host in 1..=8 {
        heartbeats.beat(NodeId(host), BootId(host), secs(140));
    }
    assert_eq!(storms(&fleet, &mut heartbeats, secs(140)).len(), 1);
    carry_out(&mut fleet, &mut heartbeats, secs(140));
    assert_eq!((state(&fleet, 9), state(&fleet, 10)), (NodeState::Silent, NodeState::Silent));
    heartbeats.beat(NodeId(10), BootId(10), secs(141));
    carry_out(&mut fleet, &mut heartbeats, secs(141));
    assert_eq!(state(&fleet, 9), NodeState::Failed, "one of ten is no storm");
}

#[test]
fn a_heartbeat_of_an_earlier_start_does_not_make_a_host_ready() {
    let (mut fleet, mut heartbeats) = fleet(1);
    apply(&mut fleet, register("host1", 77));
    assert_eq!(state(&fleet, 1), NodeState::Initializing);
    carry_out(&mut fleet, &mut heartbeats, secs(101));
    assert_eq!(state(&fleet, 1), NodeState::Initializing);
    heartbeats.beat(NodeId(1), BootId(77), secs(101));
    carry_out(&mut fleet, &mut heartbeats, secs(101));
    assert_eq!(state(&fleet, 1), NodeState::Ready);
    let stale = Observe { node: 1, boot: 1, event: Event::TimedOut.into() };
    assert_eq!(apply(&mut fleet, Op::Observe(stale)), Answer::Stale);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ids_stay_with_names_and_snapshots_read_back(
        steps in prop::collection::vec((0..6_u8, 0..4_u64, 0..3_u64, 0..6_i32), 0..60)
    ) {
        let mut fleet = Fleet::default();
        let mut names = std::collections::BTreeMap::new();
        for (kind, host, boot, event) in steps {
            if kind == 0 {
                let name = format!("host{host}");
                let Answer::Registered(id) = apply(&mut fleet, register(&name, boot)) else { panic!("refused") };
                prop_assert_eq!(*names.entry(name).or_insert(id), id);
            } else {
                let before = fleet.clone();
                let answer = apply(&mut fleet, Op::Observe(Observe { node: host, boot, event }));
                if !matches!(answer, Answer::Changed(_)) {
                    prop_assert!(before.iter().eq(fleet.iter()));
                }
            }
        }
        prop_assert_eq!(&Fleet::decode(&fleet.encode_to_vec()).unwrap(), &fleet);
    }
}
