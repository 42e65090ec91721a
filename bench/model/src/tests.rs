//! That the model is what it is taken for: its controllers are the real ones, its hosts are alike, and what it leaves out
//! changes nothing that anybody could see.

mod alike;
mod less;
mod slice;

use std::collections::HashSet;

use crate::fingerprint::Fingerprints;
use crate::{Bounds, Rare, Reconfiguration, Reductions, Step, World};

/// Few enough that every order of steps can be tried with nothing left out.
pub(crate) const SMALL: Bounds = Bounds { members: 2, writes: 1, crashes: 1, amnesias: 1, epochs: 3 };
/// More than a walk of some hundred steps uses up.
pub(crate) const WIDE: Bounds = Bounds { members: 3, writes: 4, crashes: 8, amnesias: 4, epochs: 14 };

/// Numbers that look random, the same in every run.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % count
    }
}

/// All that may come next.
pub(crate) fn next_of(model: &Reconfiguration, world: &World) -> Vec<(Step, World, Option<Rare>)> {
    let mut next = Vec::new();
    model.successors(world, |step, world, rare| next.push((step, world, rare)));
    next
}

/// Takes steps at random until there are none, from the first world on.
pub(crate) fn walk(model: &Reconfiguration, seed: u64, steps_max: usize, mut see: impl FnMut(&World)) {
    let mut draws = Draws(seed);
    let mut world = model.first();
    for _ in 0..steps_max {
        see(&world);
        let next = next_of(model, &world);
        if next.is_empty() {
            return;
        }
        world = next[draws.below(next.len())].1;
    }
}

/// Every world within small bounds.
pub(crate) fn all_worlds(bounds: Bounds, reductions: Reductions, mut see: impl FnMut(&World)) {
    let model = Reconfiguration::new(bounds, reductions, None);
    let fingerprints = Fingerprints::new(reductions.alike);
    let mut seen = HashSet::new();
    let mut waiting = vec![model.first()];
    while let Some(world) = waiting.pop() {
        if seen.insert(fingerprints.of(&world)) {
            see(&world);
            model.successors(&world, |_, next, _| waiting.push(next));
        }
    }
}
