//! A small exhaustive model of a replica group that changes its members: two to four members on four hosts, clients that write
//! and read, crashes, restarts, devices that come back as old images.
//!
//! The controllers are the real slice [`nova_groups`]; every command that its plan could ever make is tried at every
//! moment, and more. Members follow docs/novafs.md in steps as small as a message or a wait. What is checked after
//! every step: no acknowledged write is lost or replaced, whoever is in sync holds all of them, and no read misses one.
//!
//! | part | what it is |
//! | --- | --- |
//! | `world` | a state |
//! | `controllers` | the slice, as a table of what it decides |
//! | `steps`, `take` | what may happen, and what comes of it |
//! | `at_once` | steps that are better taken than not, so that no order without them is tried |
//! | `forget` | what cannot matter any more |
//! | `fingerprint` | worlds that differ in the names of hosts only are one |
//! | `explore` | every state by the fewest steps first |
//! | `rules` | bounds, which of these reductions are on, and rules that are broken on purpose |
//!
//! Each reduction says in its file why it loses nothing, and can be left off. Tests show it: the slice that is made of
//! what a state keeps decides like one that lived through all of it; a world and its twin with other names have the same
//! futures; whatever can be seen in some state with nothing left out can be seen in one that is left; and each of ten
//! rules that are broken on purpose is found with all of them and with any one left off.
//!
//! # What it found
//! While the mount counter alone told old images, one of an earlier mount was believed when its host started twice before the
//! controllers had taken its mount: each start raises the counter. It took three crashes, one old image and six epochs of a
//! group of two. Hence the trail (docs/adr/0028).
#![forbid(unsafe_code)]

mod at_once;
mod controllers;
mod explore;
mod fingerprint;
mod forget;
mod host_set;
mod log;
mod rules;
mod steps;
mod take;
#[cfg(test)]
mod tests;
mod world;

use controllers::Controllers;
use rules::Rules;

pub use explore::{Found, Progress};
pub use rules::{Broken, Reductions};
pub use steps::Step;
pub use take::Rare;
pub use world::{Bounds, Violation, World};

/// The model.
#[derive(Debug)]
pub struct Reconfiguration {
    rules: Rules,
    controllers: Controllers,
}

impl Reconfiguration {
    /// Within bounds, with what makes it smaller, and perhaps with a rule that is broken.
    #[must_use]
    pub fn new(bounds: Bounds, reductions: Reductions, broken: Option<Broken>) -> Self {
        let rules = Rules { bounds, reductions, broken };
        Self { rules, controllers: Controllers::new(bounds.members, reductions.alike) }
    }

    /// The world before any step.
    #[must_use]
    pub fn first(&self) -> World {
        let mut world = World::first(self.controllers.first());
        self.finish(&mut world);
        world
    }

    /// All that may come next.
    pub fn successors(&self, world: &World, mut to: impl FnMut(Step, World, Option<Rare>)) {
        let mut steps = Vec::with_capacity(32);
        world.steps(&self.rules, &mut steps);
        for step in steps {
            self.take(world, step, |next, rare| to(step, next, rare));
        }
    }

    /// The end of every step: what is done at once, what must hold, what is forgotten.
    fn finish(&self, world: &mut World) {
        if self.rules.reductions.at_once {
            world.settle();
        }
        world.check(&self.rules);
        if self.rules.reductions.forget && world.violation().is_none() {
            world.forget(&self.rules);
            if self.rules.reductions.at_once {
                world.settle();
            }
        }
    }
}
