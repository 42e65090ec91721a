//! What makes the model smaller changes nothing that anybody could see.

use std::collections::HashSet;

use super::{SMALL, all_worlds};
use crate::host_set::HOSTS;
use crate::rules::Rules;
use crate::{Bounds, Reductions, World};

/// How many entries a device holds, how many of them it knows to be committed, and whether it is the primary's.
type Device = (u8, u8, bool);

/// What can be seen of a world, whatever the hosts are called: the epoch, what was acknowledged, the devices of any two
/// members in sync, and what one host answers with what it holds. Two, as nobody crashes in the last epoch where only
/// a device would be gone by that.
type Sight = (u8, u8, [Device; 2], Option<(Device, u8)>);

fn sights(world: &World, rules: &Rules, seen: &mut HashSet<Sight>) {
    let device = |host: usize| {
        let disk = &world.hosts[host].disk;
        (disk.log.len(), disk.commit, usize::from(world.control.primary) == host)
    };
    let in_sync = world.control.in_sync.iter().filter(|host| world.has_its_life(*host));
    let devices: Vec<Device> = in_sync.map(device).collect();
    let answers =
        (0..HOSTS).filter_map(|host| world.read_at(host, rules).map(|entries| (device(host), entries)));
    let answers: Vec<_> = answers.map(Some).chain([None]).collect();
    for one in &devices {
        for other in &devices {
            let sight = |answer| (world.control.epoch, world.acknowledged.len(), [*one, *other], answer);
            seen.extend(answers.iter().copied().map(sight));
        }
    }
}

fn seen(bounds: Bounds, reductions: Reductions) -> HashSet<Sight> {
    let mut all = HashSet::new();
    let rules = Rules { bounds, reductions, broken: None };
    let mut worlds = 0;
    all_worlds(bounds, reductions, |world| {
        worlds += 1;
        sights(world, &rules, &mut all);
    });
    println!("{reductions:?}: {worlds} worlds, {} sights", all.len());
    all
}

#[test]
fn whatever_can_be_seen_of_all_worlds_is_seen_of_those_that_are_left() {
    let joined = Bounds { crashes: 0, amnesias: 0, epochs: 4, ..SMALL };
    let three = Bounds { members: 3, crashes: 0, amnesias: 0, epochs: 2, ..SMALL };
    for bounds in [SMALL, joined, three] {
        let whole = seen(bounds, Reductions { alike: true, ..Reductions::NONE });
        assert!(whole.len() > 50, "{} sights", whole.len());
        let named = seen(bounds, Reductions::NONE);
        assert!(named.is_subset(&whole), "an order of names is missing");
        for reductions in [
            Reductions { at_once: true, forget: false, alike: true },
            Reductions { at_once: false, forget: true, alike: true },
            Reductions::ALL,
        ] {
            let left = seen(bounds, reductions);
            let missing: Vec<_> = whole.difference(&left).take(3).collect();
            assert!(missing.is_empty(), "{bounds:?}, {reductions:?}: {missing:?}");
        }
    }
}
