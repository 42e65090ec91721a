//! Every world within bounds, by the fewest steps first. Kept are a fingerprint of each world, by which step of which other
//! one it was reached, and whole worlds only while their steps are not yet tried: some 20 bytes a world.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use crate::Reconfiguration;
use crate::fingerprint::{Fingerprints, Same};
use crate::steps::Step;
use crate::take::Rare;
use crate::world::{Violation, World};

/// Time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Worlds between two looks at the clock.
const WORLDS_A_LOOK: usize = 4096;

/// How far an exploration is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Different worlds so far.
    pub worlds: usize,
    /// Of these, how many were not yet looked at.
    pub waiting: usize,
    /// Steps tried.
    pub steps: u64,
    /// Steps from the first world to the one looked at.
    pub depth: u32,
    /// Since the start.
    pub elapsed: Duration,
}

/// What an exploration found.
#[derive(Debug)]
pub struct Found {
    /// How far it came.
    pub progress: Progress,
    /// Nothing was left to look at.
    pub ended: bool,
    /// Rare steps that were met.
    pub met: Vec<Rare>,
    /// What must never happen, and the shortest way there.
    pub violation: Option<(Violation, Vec<Step>)>,
}

/// How a world was reached first: from which one, and by which of its steps.
type Reached = (u32, u8);

struct Exploration<'a> {
    model: &'a Reconfiguration,
    fingerprints: Fingerprints,
    seen: HashSet<u64, BuildHasherDefault<Same>>,
    reached: Vec<Vec<Reached>>,
    waiting: VecDeque<World>,
    met: Vec<Rare>,
    steps: u64,
}

/// How many ways are kept together: none is ever moved.
const REACHED_CHUNK: usize = 1 << 20;

impl Reconfiguration {
    /// Tries every order of steps until `worlds_max` worlds are known, and reports every few seconds.
    ///
    /// # Panics
    /// When there are more than 2³² worlds.
    pub fn explore(&self, worlds_max: usize, mut report: impl FnMut(Progress)) -> Found {
        let started = Instant::now();
        let mut exploration = Exploration {
            model: self,
            fingerprints: Fingerprints::new(self.rules.reductions.alike),
            seen: HashSet::default(),
            reached: Vec::new(),
            waiting: VecDeque::new(),
            met: Vec::new(),
            steps: 0,
        };
        let first = self.first();
        exploration.add(first, (0, 0));
        let (mut looked_at, mut depth, mut next_depth, mut reported) = (0usize, 0, 1, started);
        let mut violation = None;
        while let Some(world) = exploration.waiting.pop_front() {
            let index = u32::try_from(looked_at).expect("fewer worlds than 2^32");
            if looked_at == next_depth {
                depth += 1;
                next_depth = exploration.seen.len();
            }
            looked_at += 1;
            if let Some((what, ordinal)) = exploration.look_at(&world, index) {
                let way = exploration.way_to((index, ordinal));
                violation = Some((what, way));
                break;
            }
            if looked_at.is_multiple_of(WORLDS_A_LOOK) && reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                report(exploration.progress(depth, started));
            }
            if exploration.seen.len() >= worlds_max {
                break;
            }
        }
        Found {
            progress: exploration.progress(depth, started),
            ended: exploration.waiting.is_empty() && violation.is_none(),
            met: exploration.met,
            violation,
        }
    }
}

impl Exploration<'_> {
    fn progress(&self, depth: u32, started: Instant) -> Progress {
        Progress {
            worlds: self.seen.len(),
            waiting: self.waiting.len(),
            steps: self.steps,
            depth,
            elapsed: started.elapsed(),
        }
    }

    fn add(&mut self, world: World, reached: Reached) {
        if !self.seen.insert(self.fingerprints.of(&world)) {
            return;
        }
        if self.reached.last().is_none_or(|chunk| chunk.len() == REACHED_CHUNK) {
            self.reached.push(Vec::with_capacity(REACHED_CHUNK));
        }
        self.reached.last_mut().expect("there is one").push(reached);
        self.waiting.push_back(world);
    }

    /// Tries every step of a world; tells which was the first that led to a violation.
    fn look_at(&mut self, world: &World, index: u32) -> Option<(Violation, u8)> {
        let mut found = None;
        let mut ordinal = 0;
        let model = self.model;
        model.successors(world, |_, next, rare| {
            self.steps += 1;
            if let Some(rare) = rare
                && !self.met.contains(&rare)
            {
                self.met.push(rare);
            }
            match next.violation() {
                Some(violation) => found = found.or(Some((violation, ordinal))),
                None => self.add(next, (index, ordinal)),
            }
            ordinal += 1;
        });
        found
    }

    /// The steps from the first world to the last one.
    fn way_to(&self, last: Reached) -> Vec<Step> {
        let mut ordinals = vec![last.1];
        let mut index = last.0;
        while index != 0 {
            let at = usize::try_from(index).expect("fits");
            let (from, ordinal) = self.reached[at / REACHED_CHUNK][at % REACHED_CHUNK];
            ordinals.push(ordinal);
            index = from;
        }
        let mut world = self.model.first();
        let steps = ordinals.into_iter().rev().map(|wanted| {
            let mut ordinal = 0;
            let mut taken = None;
            self.model.successors(&world, |step, next, _| {
                if ordinal == wanted {
                    taken = Some((step, next));
                }
                ordinal += 1;
            });
            let (step, next) = taken.expect("it was reached like that");
            world = next;
            step
        });
        steps.collect()
    }
}
