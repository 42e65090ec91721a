//! The slice that is made of what the model keeps decides like the one that lived through everything.

use nova_groups::Mount;

use super::{Draws, WIDE};
use crate::controllers::{Controllers, Decision, Lived};
use crate::host_set::{HOSTS, HostSet};
use crate::{Reconfiguration, Reductions, Step, World};

/// What a device says of itself, in numbers.
#[derive(Clone, Copy, Default)]
struct Device {
    counter: u64,
    life: u64,
}

/// Real devices under a slice that is never made anew.
struct Shadow {
    lived: Lived,
    boots: [u64; HOSTS],
    disks: [Device; HOSTS],
    images: [Device; HOSTS],
}

impl Shadow {
    fn new(controllers: &Controllers) -> Self {
        let lived = controllers.lived();
        let disks = std::array::from_fn(|host| {
            let (counter, life) = lived.device(host);
            Device { counter, life }
        });
        Self { lived, boots: [1; HOSTS], disks, images: [Device::default(); HOSTS] }
    }

    /// Follows a step of the model; every decision is the slice's own.
    fn take(&mut self, world: &World, step: Step, model: &Reconfiguration) {
        match step {
            Step::Start(host) => self.start(host),
            Step::StartOld(host) => {
                self.disks[host] = self.images[host];
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
        self.images[host] = self.disks[host];
        self.disks[host].counter += 1;
        self.boots[host] += 1;
    }

    fn mount(&mut self, world: &World, hosts: HostSet, confirm: HostSet) {
        let mounts = hosts.iter().map(|host| {
            let Device { counter, life } = self.disks[host];
            self.lived.mount(host, self.boots[host], counter, life)
        });
        let mounts: Vec<Mount> = mounts.collect();
        for host in self.lived.restart(world.control, mounts, confirm).iter() {
            self.disks[host].life = self.lived.device(host).1;
        }
    }

    fn agrees_with(&self, world: &World) {
        assert_eq!(self.lived.control(), world.control, "{world:?}");
        let claims = world.claims();
        for host in 0..HOSTS {
            let (counter, life) = self.lived.device(host);
            assert_eq!(
                self.disks[host].counter > counter,
                claims.ahead.contains(host),
                "{host} of {world:?}"
            );
            assert_eq!(self.disks[host].life != life, claims.past.contains(host), "{host} of {world:?}");
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
