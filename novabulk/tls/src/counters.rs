//! What was done to the bytes of lanes.

use core::cell::Cell;

/// Totals over all lanes of a shard. Heads and bodies are counted as they are given and taken, without what records add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsCounters {
    /// Bytes sealed, each as often as it was sent.
    pub bytes_sealed: u64,
    /// Bytes opened.
    pub bytes_opened: u64,
    /// Bytes that were copied beside that: short sends, pieces of records that moved to another place of a stage or to another
    /// stage, what did not fit where it belonged, and what users of lanes say that they copied.
    pub bytes_copied: u64,
    /// Sends of the lanes below.
    pub sends: u64,
    /// Receives of the lanes below.
    pub receives: u64,
}

/// A shard's own copy.
#[derive(Debug, Default)]
pub(crate) struct Tally(Cell<TlsCounters>);

impl Tally {
    pub(crate) fn count(&self, change: impl FnOnce(&mut TlsCounters)) {
        let mut counters = self.0.get();
        change(&mut counters);
        self.0.set(counters);
    }

    pub(crate) fn read(&self) -> TlsCounters {
        self.0.get()
    }
}
