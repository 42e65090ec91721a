//! Where a group's log stands on this device.

use std::collections::BTreeMap;

use nova_units::{CommitPoint, Seq};
use novafs_format::LogEntry;

/// The log of a group: what is committed, prepared and under way.
///
/// Numbers are dense.
#[derive(Debug)]
pub(crate) struct Log<B> {
    /// Committed and visible up to here.
    pub(crate) commit: CommitPoint,
    /// Last entry given to the store.
    pub(crate) last: CommitPoint,
    /// Last entry that is durable with all before it.
    pub(crate) durable: CommitPoint,
    /// Entries above the commit.
    pub(crate) tail: BTreeMap<Seq, TailEntry<B>>,
    /// Entries given to the store and not yet durable in order.
    issued: BTreeMap<Seq, Issue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Issue {
    /// The store is at work.
    Running,
    /// Durable, but something before it is not.
    Done,
    /// The store had no room.
    Failed,
}

#[derive(Debug)]
pub(crate) struct TailEntry<B> {
    pub(crate) at: CommitPoint,
    pub(crate) entry: LogEntry,
    /// Kept by a primary until the commit, or until it is primary no more.
    pub(crate) body: Option<B>,
}

impl<B> TailEntry<B> {
    /// Whether the entry can be sent as it is.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_some() || self.entry.units().is_empty()
    }
}

impl<B> Log<B> {
    /// The log as recovered, and whether entries behind a gap were left out: those must be discarded.
    pub(crate) fn recovered(commit: CommitPoint, found: Vec<(CommitPoint, LogEntry)>) -> (Self, bool) {
        let mut log = Self::starting_at(commit);
        let mut ragged = false;
        for (at, entry) in found {
            ragged |= at.seq != log.last.seq.next();
            if !ragged {
                log.tail.insert(at.seq, TailEntry { at, entry, body: None });
                (log.last, log.durable) = (at, at);
            }
        }
        (log, ragged)
    }

    pub(crate) fn starting_at(commit: CommitPoint) -> Self {
        Self { commit, last: commit, durable: commit, tail: BTreeMap::new(), issued: BTreeMap::new() }
    }

    /// Takes note that an entry was given to the store.
    pub(crate) fn issue(&mut self, at: CommitPoint, entry: LogEntry, body: Option<B>) {
        assert!(at.seq == self.last.seq.next(), "{at} given to the store behind {}", self.last);
        self.tail.insert(at.seq, TailEntry { at, entry, body });
        self.issued.insert(at.seq, Issue::Running);
        self.last = at;
    }

    /// Takes note that the store made an entry durable; true when more is durable in order than before.
    pub(crate) fn complete(&mut self, seq: Seq) -> bool {
        let Some(issue) = self.issued.get_mut(&seq) else { return false };
        *issue = Issue::Done;
        let before = self.durable;
        while let Some(first) = self.issued.first_entry() {
            if *first.get() != Issue::Done {
                break;
            }
            let (seq, _) = first.remove_entry();
            self.durable = self.tail.get(&seq).map_or(self.durable, |entry| entry.at);
        }
        self.durable != before
    }

    /// Takes note that the store had no room for an entry.
    pub(crate) fn fail(&mut self, seq: Seq) {
        if let Some(issue) = self.issued.get_mut(&seq) {
            *issue = Issue::Failed;
        }
    }

    /// Whether the store has nothing under way.
    pub(crate) fn is_settled(&self) -> bool {
        !self.issued.values().any(|issue| *issue == Issue::Running)
    }

    /// Whether there are entries the store had no room for.
    pub(crate) fn has_failed(&self) -> bool {
        self.issued.values().any(|issue| *issue == Issue::Failed)
    }

    /// Lets go of the bytes of every entry: what is durable can be read back, and the store has the rest in hand.
    pub(crate) fn release_bodies(&mut self) {
        for entry in self.tail.values_mut() {
            entry.body = None;
        }
    }

    /// Moves the commit to `seq`, at most to what is durable here; the entries that this commits.
    pub(crate) fn advance(&mut self, seq: Seq) -> Vec<TailEntry<B>> {
        let seq = seq.min(self.durable.seq);
        if seq <= self.commit.seq {
            return Vec::new();
        }
        let above = self.tail.split_off(&seq.next());
        let committed: Vec<_> = core::mem::replace(&mut self.tail, above).into_values().collect();
        if let Some(newest) = committed.last() {
            self.commit = newest.at;
        }
        committed
    }

    /// Forgets everything above `keep`, which is not below the commit.
    pub(crate) fn discard_above(&mut self, keep: Seq) {
        assert!(self.is_settled(), "entries are discarded while the store writes");
        assert!(keep >= self.commit.seq, "{keep} is below the commit {}", self.commit);
        self.tail.split_off(&keep.next());
        self.issued.clear();
        let newest = self.tail.last_key_value().map_or(self.commit, |(_, entry)| entry.at);
        (self.last, self.durable) = (newest, newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nova_units::{BlockId, Epoch};

    fn at(seq: u64) -> CommitPoint {
        CommitPoint { epoch: Epoch(1), seq: Seq(seq) }
    }

    fn entry() -> LogEntry {
        LogEntry::Delete { block: BlockId(1) }
    }

    #[test]
    fn what_lies_behind_a_gap_is_not_part_of_the_log() {
        let found = [3, 4, 6, 7].map(|seq| (at(seq), entry())).to_vec();
        let (log, ragged) = Log::<()>::recovered(at(2), found);
        assert!(ragged);
        assert_eq!(log.durable, at(4));
        assert_eq!(log.tail.len(), 2);
    }

    #[test]
    fn durable_waits_for_the_entries_before_it() {
        let mut log = Log::<()>::starting_at(at(0));
        for seq in 1..=3 {
            log.issue(at(seq), entry(), None);
        }
        assert!(!log.complete(Seq(2)));
        assert!(!log.complete(Seq(3)));
        assert!(log.complete(Seq(1)));
        assert_eq!(log.durable, at(3));
        assert!(log.is_settled());
    }

    #[test]
    fn an_entry_without_room_holds_back_those_behind_it() {
        let mut log = Log::<()>::starting_at(at(0));
        for seq in 1..=3 {
            log.issue(at(seq), entry(), None);
        }
        log.complete(Seq(1));
        log.fail(Seq(2));
        assert!(!log.is_settled());
        log.complete(Seq(3));
        assert!(log.is_settled() && log.has_failed());
        assert_eq!(log.durable, at(1));
        log.discard_above(log.durable.seq);
        assert!(!log.has_failed());
    }

    #[test]
    fn a_commit_goes_no_further_than_what_is_durable() {
        let mut log = Log::<()>::starting_at(at(0));
        for seq in 1..=3 {
            log.issue(at(seq), entry(), None);
        }
        log.complete(Seq(1));
        assert_eq!(log.advance(Seq(9)).len(), 1);
        assert_eq!(log.commit, at(1));
        assert!(log.advance(Seq(1)).is_empty());
    }
}
