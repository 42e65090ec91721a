//! By which rules a model goes: bounds, what is left out of it, and rules that are broken on purpose.

use crate::world::Bounds;

/// What makes the model smaller without changing what it finds; each can be left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reductions {
    /// Steps that cannot do harm are taken at once, and others only when they help anybody.
    pub at_once: bool,
    /// What cannot matter any more is forgotten.
    pub forget: bool,
    /// Worlds that differ in the names of hosts only are one.
    pub alike: bool,
}

impl Reductions {
    /// None of them.
    pub const NONE: Self = Self { at_once: false, forget: false, alike: false };
    /// All of them.
    pub const ALL: Self = Self { at_once: true, forget: true, alike: true };
}

/// A rule that members or controllers break. The model must find what comes of it, or it is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Members acknowledge while promises to hosts outside of the epoch bind.
    PromiseForgotten,
    /// A primary reports its joiner complete, and goes on committing without it.
    JoinerUncounted,
    /// The controllers take an old image for the device it was.
    OldImageBelieved,
    /// A member in sync that adopts an epoch discards what it does not know to be committed.
    TailDiscarded,
    /// A member reads without promises.
    LeaseNotChecked,
    /// A member that holds what may be committed answers with what it knows to be, and does not ask the primary.
    PrimaryNotAsked,
    /// A new primary tells what is committed before it has committed what earlier ones ordered.
    UnsettledTold,
    /// Members are brought back while the survivor may still read.
    SurvivorReads,
    /// A joiner can be brought back as if it had discarded nothing.
    JoinerIsWritable,
    /// A primary that is alone commits.
    CommitsAlone,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::PromiseForgotten,
        Self::JoinerUncounted,
        Self::OldImageBelieved,
        Self::TailDiscarded,
        Self::LeaseNotChecked,
        Self::PrimaryNotAsked,
        Self::UnsettledTold,
        Self::SurvivorReads,
        Self::JoinerIsWritable,
        Self::CommitsAlone,
    ];
}

/// By which rules a model goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) bounds: Bounds,
    pub(crate) reductions: Reductions,
    pub(crate) broken: Option<Broken>,
}

impl Rules {
    pub(crate) fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }
}
