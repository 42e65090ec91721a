//! Hosts are alike: with other names all goes the same way.

use super::{Draws, WIDE, next_of, walk};
use crate::controllers::{Order, orders};
use crate::fingerprint::Fingerprints;
use crate::host_set::{HOSTS, HostSet};
use crate::world::{NONE, World};
use crate::{Reconfiguration, Reductions};

/// The same world in which every host has another name.
pub(crate) fn renamed(world: &World, order: Order) -> World {
    let set = |hosts: HostSet| hosts.iter().map(|host| usize::from(order[host])).collect::<HostSet>();
    let one = |host: u8| if host == NONE { NONE } else { order[usize::from(host)] };
    let mut twin = *world;
    let control = &mut twin.control;
    control.primary = one(control.primary);
    for hosts in [&mut control.in_sync, &mut control.joining, &mut control.over, &mut control.writable] {
        *hosts = set(*hosts);
    }
    for host in 0..HOSTS {
        let mut it = world.hosts[host];
        it.view.primary = one(it.view.primary);
        for hosts in [&mut it.view.in_sync, &mut it.view.joining, &mut it.leases, &mut it.promises] {
            *hosts = set(*hosts);
        }
        for (other, name) in order.into_iter().enumerate() {
            it.acked[usize::from(name)] = world.hosts[host].acked[other];
        }
        twin.hosts[usize::from(order[host])] = it;
    }
    twin
}

#[test]
fn worlds_that_differ_in_names_have_one_fingerprint_and_twins_of_each_others_futures() {
    let mut draws = Draws(4711);
    let fingerprints = Fingerprints::new(true);
    let (mut twins, mut forced) = (0, 0);
    for seed in 0..60 {
        for reductions in [Reductions::ALL, Reductions { alike: true, ..Reductions::NONE }] {
            let model = Reconfiguration::new(WIDE, reductions, None);
            walk(&model, seed, 150, |world| {
                let all = orders();
                let twin = renamed(world, all[draws.below(all.len())]);
                assert_eq!(fingerprints.of(world), fingerprints.of(&twin), "{world:?}\n{twin:?}");
                if world.step_without_choice(&model.rules).is_some() {
                    // Of several such steps the first is taken, whosever it is.
                    forced += 1;
                    return;
                }
                let futures = |world: &World| {
                    let next = next_of(&model, world).into_iter();
                    let mut futures: Vec<u64> = next.map(|(_, next, _)| fingerprints.of(&next)).collect();
                    futures.sort_unstable();
                    futures
                };
                assert_eq!(futures(world), futures(&twin), "{world:?}\n{twin:?}");
                twins += 1;
            });
        }
    }
    assert!(twins > 5_000 && forced > 10, "{twins} twins, {forced} steps without choice");
}

#[test]
fn different_worlds_have_different_fingerprints() {
    // Those that are not twins: whoever is told apart by every order of names is told apart.
    let fingerprints = Fingerprints::new(true);
    let model = Reconfiguration::new(WIDE, Reductions::ALL, None);
    let mut known = std::collections::HashMap::new();
    for seed in 0..60 {
        walk(&model, seed, 150, |world| {
            let other = *known.entry(fingerprints.of(world)).or_insert(*world);
            let is_twin = orders().into_iter().any(|order| renamed(world, order) == other);
            assert!(is_twin, "{world:?}\n{other:?}");
        });
    }
    assert!(known.len() > 1_000, "{} worlds", known.len());
}
