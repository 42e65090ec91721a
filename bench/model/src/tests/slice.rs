//! The slice that is made of what the model keeps decides like the one that lived through everything.

use nova_groups::Mount;
use nova_units::MountNonce;

use super::{Draws, WIDE};
use crate::controllers::{Controllers, Decision, Lived};
use crate::host_set::{HOSTS, HostSet};
use crate::{Reconfiguration, Reductions, Step, World};

/// What a device says of itself, in numbers.
#[derive(Clone, Default)]
struct Device {
    counter: u64,
    life: u64,
    /// Longer than real ones are.
    trail: Vec<u64>,
}

/// Real devices under a slice that is never made anew.
struct Shadow {
    lived: Lived,
    boots: [u64; HOSTS],
    disks: [Device; HOSTS],
    images: [Device; HOSTS],
    last_nonce: u64,
}

impl Shadow {
    fn new(controllers: &Controllers) -> Self {
        let lived = controllers.lived();
        let disks = std::array::from_fn(|host| {
            let known = lived.device(host);
            Device { counter: known.mount_counter, life: known.incarnation.0, trail: vec![known.mount.0] }
        });
        Self { lived, boots: [1; HOSTS], disks, images: Default::default(), last_nonce: 1_000 }
    }

    /// Follows a step of the model; every decision is the slice's own.
    fn take(&mut self, world: &World, step: Step, model: &Reconfiguration) {
        match step {
            Step::Start(host) => self.start(host),
            Step::StartOld(host) => {
                self.disks[host] = self.images[host].clone();
                self.start(host);
            }
            _ => {}
        }
        match world.decision(step, &model.rules) {
            Some(Decision::Take { hosts, confirm, .. }) => self.mount(world, hosts, confirm),
            Some(decision) => self.lived.decide(world.control, decision),
            None => {}
        }
    }

    fn start(&mut self, host: usize) {
        self.images[host] = self.disks[host].clone();
        self.disks[host].counter += 1;
        self.last_nonce += 1;
        self.disks[host].trail.push(self.last_nonce);
        self.boots[host] += 1;
    }

    fn mount(&mut self, world: &World, hosts: HostSet, confirm: HostSet) {
        let mounts = hosts.iter().map(|host| {
            let Device { counter, life, trail } = &self.disks[host];
            // A trail is never full here, so that only its end is needed beside what the controllers know.
            let known = self.lived.device(host).mount;
            let kept = trail.iter().filter(|mount| **mount == known.0 || Some(*mount) == trail.last());
            Mount {
                boot: self.boots[host],
                mount_counter: *counter,
                incarnation: *life,
                trail: kept.copied().collect(),
                ..Lived::mount(host)
            }
        });
        let mounts: Vec<Mount> = mounts.collect();
        for host in self.lived.restart(world.control, mounts, confirm).iter() {
            self.disks[host].life = self.lived.device(host).incarnation.0;
        }
    }

    fn agrees_with(&self, world: &World) {
        assert_eq!(self.lived.control(), world.control, "{world:?}");
        let claims = world.claims();
        for host in 0..HOSTS {
            let (known, disk) = (self.lived.device(host), &self.disks[host]);
            let traced = disk.trail.iter().any(|mount| MountNonce(*mount) == known.mount);
            assert_eq!(traced, claims.traced.contains(host), "{host} of {world:?}");
            assert_eq!(disk.life != known.incarnation.0, claims.past.contains(host), "{host} of {world:?}");
        }
    }
}

#[test]
fn a_slice_made_of_what_is_kept_decides_like_one_that_lived_through_it() {
    let mut decisions = 0;
    for seed in 0..300 {
        let model = Reconfiguration::new(WIDE, Reductions::NONE, None);
        let mut draws = Draws(seed);
        let mut world = model.first();
        let mut shadow = Shadow::new(&model.controllers);
        shadow.agrees_with(&world);
        for _ in 0..400 {
            let next = super::next_of(&model, &world);
            if next.is_empty() {
                break;
            }
            // Half of the steps are the controllers', as far as there are any.
            let theirs: Vec<_> =
                next.iter().filter(|(step, ..)| world.decision(*step, &model.rules).is_some()).collect();
            let (step, after, _) = match draws.below(4) {
                0 if !theirs.is_empty() => *theirs[draws.below(theirs.len())],
                _ => next[draws.below(next.len())],
            };
            decisions += usize::from(world.decision(step, &model.rules).is_some());
            shadow.take(&world, step, &model);
            shadow.agrees_with(&after);
            world = after;
        }
    }
    assert!(decisions > 2_000, "{decisions} decisions");
}
