//! A joiner that gets no further is noticed, and another host takes its place.

use nova_groups::{FILL_STALLED_AFTER, FillReport, Fillings, Op, Role};
use nova_units::{GroupId, NodeId};

use crate::kit::{Region, secs};

const GROUP: GroupId = GroupId(1);

/// Hosts 1 to `hosts`; host 3 restarted and joins group 1, whose homes are hosts 1 to 3.
fn joining(hosts: u64) -> (Region, Vec<u64>) {
    let mut region = Region::new(3, 1);
    for host in 4..=hosts {
        region.observed.storage.insert(NodeId(host));
        region.start(host, host * 1000);
    }
    region.settle();
    region.start(3, 3001);
    let running: Vec<u64> = (1..=hosts).collect();
    region.pass(secs(1), &running);
    region.settle();
    assert_eq!(joiner(&region), Some(3));
    (region, running)
}

fn joiner(region: &Region) -> Option<u64> {
    let members = region.group(1).members.iter();
    members.into_iter().find(|member| member.role == Role::Joining).map(|member| member.node.0)
}

/// Time passes while the joiner says `said`, a look and a plan every second.
fn look(region: &mut Region, fillings: &mut Fillings, seconds: u64, running: &[u64], said: FillReport) {
    for _ in 0..seconds {
        region.pass(secs(1), running);
        let now = region.observed.now;
        fillings.look(&region.groups, now, |_, _| Some(said));
        let stalled = |node: &u64| fillings.state(GROUP, NodeId(*node), now).is_some_and(|it| it.stalled);
        region.observed.stalled =
            running.iter().filter(|node| stalled(node)).map(|node| (GROUP, NodeId(*node))).collect();
        region.observed.shunned = fillings.shunned();
        region.settle();
    }
}

fn page(units: u64) -> FillReport {
    FillReport { units, paging: true, followed: 7 }
}

#[test]
fn a_joiner_without_progress_is_replaced_by_another_host_and_not_asked_again() {
    let (mut region, running) = joining(4);
    let mut fillings = Fillings::default();
    look(&mut region, &mut fillings, 5, &running, page(10));
    look(&mut region, &mut fillings, FILL_STALLED_AFTER.as_secs() - 6, &running, page(10));
    assert_eq!(joiner(&region), Some(3), "it has its time");
    look(&mut region, &mut fillings, 3, &running, page(10));
    assert_eq!(joiner(&region), Some(4));
    // The new one gets no further either: there is no third, so it stays.
    look(&mut region, &mut fillings, 2 * FILL_STALLED_AFTER.as_secs(), &running, page(10));
    assert_eq!(joiner(&region), Some(4));
    assert_eq!(region.in_sync(1), [1, 2]);
}

#[test]
fn a_joiner_that_is_emptied_and_filled_again_and_again_makes_no_progress_and_one_that_goes_on_does() {
    let (mut region, running) = joining(4);
    let mut fillings = Fillings::default();
    for _ in 0..FILL_STALLED_AFTER.as_secs() / 4 {
        look(&mut region, &mut fillings, 1, &running, page(10));
        // Entries of the log come along all the while.
        let followed = region.observed.now.as_secs();
        look(&mut region, &mut fillings, 1, &running, FillReport { followed, ..page(4) });
    }
    assert_eq!(joiner(&region), Some(3));
    let state = fillings.state(GROUP, NodeId(3), region.observed.now).unwrap();
    assert!(state.idle >= FILL_STALLED_AFTER / 4, "{state:?}");
    for units in 11..100 {
        look(&mut region, &mut fillings, 1, &running, page(units));
    }
    let state = fillings.state(GROUP, NodeId(3), region.observed.now).unwrap();
    assert_eq!((state.units, state.idle, state.stalled), (99, secs(0), false));
    assert!((state.units_per_second - 1.0).abs() < 0.01, "{state:?}");
    // Whole again, it follows the log: every entry is progress now.
    for followed in 100..200 {
        look(&mut region, &mut fillings, 1, &running, FillReport { units: 99, paging: false, followed });
    }
    assert_eq!(joiner(&region), Some(3));
}

#[test]
fn without_another_host_a_stalled_joiner_stays_and_a_group_that_nobody_can_fill_blames_nobody() {
    let (mut region, running) = joining(3);
    let mut fillings = Fillings::default();
    look(&mut region, &mut fillings, 200, &running, page(10));
    assert_eq!(joiner(&region), Some(3), "better slow than nowhere");
    assert!(fillings.state(GROUP, NodeId(3), region.observed.now).unwrap().stalled, "and it is told");

    let (mut region, _) = joining(4);
    let mut fillings = Fillings::default();
    region.observed.storm = true;
    look(&mut region, &mut fillings, 200, &[1, 2, 3, 4], page(10));
    assert_eq!(joiner(&region), Some(3), "in a storm nothing is moved");
    let ops = nova_groups::plan(&region.groups, &region.observed);
    assert!(!ops.iter().any(|op| matches!(op, Op::Drop(_))), "{ops:?}");
}
