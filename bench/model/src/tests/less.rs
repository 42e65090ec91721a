//! What makes the model smaller changes nothing that anybody could see.

use std::collections::BTreeSet;

use super::{SMALL, all_worlds};
use crate::controllers::orders;
use crate::host_set::HOSTS;
use crate::rules::Rules;
use crate::{Bounds, Reductions, World};

/// What can be seen of a world: the members, what their devices hold, what was acknowledged, and what one host answers.
type Sight = (u8, Vec<(bool, u8, u8)>, u8, Option<(usize, u8)>);

/// All sights of a world, with the names of hosts in every order.
fn sights(world: &World, rules: &Rules, seen: &mut BTreeSet<Sight>) {
    for order in orders() {
        let mut devices = vec![(false, 0, 0); HOSTS];
        for host in world.control.in_sync.iter().filter(|host| world.has_its_life(*host)) {
            let disk = &world.hosts[host].disk;
            devices[usize::from(order[host])] = (true, disk.log.len(), disk.commit);
        }
        let sight = |answer| (world.control.epoch, devices.clone(), world.acknowledged.len(), answer);
        seen.insert(sight(None));
        for (host, name) in order.into_iter().enumerate() {
            if let Some(entries) = world.read_at(host, rules) {
                seen.insert(sight(Some((name.into(), entries))));
            }
        }
    }
}

fn seen(bounds: Bounds, reductions: Reductions) -> BTreeSet<Sight> {
    let mut all = BTreeSet::new();
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
        assert!(whole.len() > 100, "{} sights", whole.len());
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
