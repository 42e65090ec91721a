//! A small exhaustive model of a replica group that changes its members: two to four members on four hosts, clients that write
//! and read, crashes, restarts, devices that come back as old images.
//!
//! The controllers are the real slice [`nova_groups`]; every command that its plan could ever make is tried at every
//! moment, and more. Members follow docs/novafs.md in steps as small as a message or a wait. What is checked: no
//! acknowledged write is lost or replaced, whoever is in sync holds all of them, and no read misses one.
#![forbid(unsafe_code)]

mod steps;
mod world;

use stateright::{Model, Property};

use world::Rare;

pub use steps::Step;
pub use world::{Bounds, World};

/// The model within bounds.
#[derive(Clone, Copy, Debug)]
pub struct Reconfiguration {
    /// How far it goes.
    pub bounds: Bounds,
}

impl Model for Reconfiguration {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::first(self.bounds.members)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Step>) {
        state.steps(self.bounds, actions);
    }

    fn next_state(&self, state: &World, step: Step) -> Option<World> {
        let mut next = state.clone();
        next.take(step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties =
            vec![Property::<Self>::always("nothing acknowledged is lost or missed", |_, state: &World| {
                state.violation.is_none()
            })];
        // A check that never meets what it is about proves nothing.
        let mut met =
            |name, wanted: fn(&Self, &World) -> bool| properties.push(Property::sometimes(name, wanted));
        met("a write is acknowledged after a change of members", |_, state| {
            state.rare == Some(Rare::WrittenLater)
        });
        met("a joiner is admitted", |_, state| state.rare == Some(Rare::Admitted));
        met("members are brought back for a lost survivor", |_, state| state.rare == Some(Rare::BroughtBack));
        if self.bounds.crashes > 1 {
            met("all start again after all were down", |_, state| state.rare == Some(Rare::ColdStart));
        }
        if self.bounds.amnesias > 0 {
            met("an old image is noticed", |_, state| state.rare == Some(Rare::NewLife));
        }
        properties
    }
}
