//! What was written and read: every unit is a register with one writer at a time.
//!
//! Versions of a register are numbered in the order in which their writes began. A read must not return less than
//! what was acknowledged, or read by someone, before it began, nor more than what was begun before it ended. For
//! registers with one writer at a time that is linearizability.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BlockId, Generation, UnitIndex};

/// Number of a version; 0 is none yet.
pub(crate) type VersionNumber = u64;
/// The block was deleted.
const GONE: VersionNumber = u64::MAX;

#[derive(Debug, Default)]
struct Register {
    begun: VersionNumber,
    /// Acknowledged, or seen by a read that ended.
    known: VersionNumber,
    /// Begun by a writer that had been fenced before.
    forbidden: BTreeSet<VersionNumber>,
}

/// Everything that happened to the registers, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct History {
    registers: BTreeMap<(BlockId, UnitIndex), Register>,
    delete_begun: BTreeSet<BlockId>,
    delete_acked: BTreeSet<BlockId>,
    fences_acked: BTreeMap<BlockId, Generation>,
    /// (salt, block, generation, unit, counter): what makes key and nonce.
    nonces: BTreeSet<([u8; 16], BlockId, Generation, UnitIndex, u64)>,
    pub(crate) violations: Vec<String>,
    pub(crate) counts: Counts,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes acknowledged, in units.
    pub writes_acked: u64,
    /// Writes whose end is not known, in units.
    pub writes_unknown: u64,
    /// Units read.
    pub reads: u64,
    /// Reads that nobody answered in time.
    pub reads_unanswered: u64,
    /// Fences acknowledged.
    pub fences: u64,
    /// Writers that were refused because of a fence.
    pub fenced: u64,
    /// Writes refused for want of room.
    pub full: u64,
    /// Files written through the real edge and published, as their programs were told.
    pub files: u64,
    /// Files read whole and compared.
    pub files_read: u64,
    /// Files that were not published because their session had ended.
    pub files_fenced: u64,
    /// Writer sessions opened.
    pub sessions: u64,
    /// Writer sessions that the leader ended.
    pub sessions_ended: u64,
    /// Listings that reached their end.
    pub listings: u64,
    /// Files and directories moved.
    pub moved: u64,
    /// Files and directories removed.
    pub removed: u64,
    /// Things had back from the trash, or let go.
    pub trash_turned: u64,
    /// Requests to the file metadata that came into the log again.
    pub repeats: u64,
    /// Snapshots of the file metadata that another controller went on from.
    pub snapshots: u64,
    /// Hosts of programs killed.
    pub edges_killed: u64,
    /// Writes to files that exist, acknowledged.
    pub rewrites: u64,
    /// Entries that went along a chain of members, by hosts that lived to the end.
    pub chained: u64,
    /// Chains of theirs whose end had to be sent the entry after all.
    pub chains_broken: u64,
    /// Slots that devices compacted, on hosts that lived to the end.
    pub slots_emptied: u64,
    /// Bytes of bodies that rode in the log there.
    pub rode: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.writes_acked += other.writes_acked;
        self.writes_unknown += other.writes_unknown;
        self.reads += other.reads;
        self.reads_unanswered += other.reads_unanswered;
        self.fences += other.fences;
        self.fenced += other.fenced;
        self.full += other.full;
        self.files += other.files;
        self.files_read += other.files_read;
        self.files_fenced += other.files_fenced;
        self.sessions += other.sessions;
        self.sessions_ended += other.sessions_ended;
        self.listings += other.listings;
        self.moved += other.moved;
        self.removed += other.removed;
        self.trash_turned += other.trash_turned;
        self.repeats += other.repeats;
        self.snapshots += other.snapshots;
        self.edges_killed += other.edges_killed;
        self.rewrites += other.rewrites;
        self.chained += other.chained;
        self.chains_broken += other.chains_broken;
        self.slots_emptied += other.slots_emptied;
        self.rode += other.rode;
    }
}

impl History {
    pub(crate) fn violation(&mut self, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }

    /// A write begins; the number of its version.
    pub(crate) fn begin_write(
        &mut self,
        block: BlockId,
        unit: UnitIndex,
        generation: Generation,
    ) -> VersionNumber {
        let fenced = self.fences_acked.get(&block).is_some_and(|fence| generation < *fence);
        let register = self.registers.entry((block, unit)).or_default();
        register.begun += 1;
        if fenced {
            register.forbidden.insert(register.begun);
        }
        register.begun
    }

    pub(crate) fn note_seal(
        &mut self,
        salt: [u8; 16],
        block: BlockId,
        generation: Generation,
        unit: UnitIndex,
        counter: u64,
    ) {
        if !self.nonces.insert((salt, block, generation, unit, counter)) {
            self.violation(format!("a nonce was used twice: {block} {unit} {generation} counter {counter}"));
        }
    }

    pub(crate) fn ack_write(&mut self, block: BlockId, unit: UnitIndex, version: VersionNumber) {
        self.counts.writes_acked += 1;
        let Some(register) = self.registers.get_mut(&(block, unit)) else { return };
        register.known = register.known.max(version);
        if register.forbidden.contains(&version) {
            self.violation(format!("a fenced writer succeeded: {block} {unit} version {version}"));
        }
    }

    pub(crate) fn ack_fence(&mut self, block: BlockId, generation: Generation) {
        self.counts.fences += 1;
        let fence = self.fences_acked.entry(block).or_default();
        *fence = (*fence).max(generation);
    }

    pub(crate) fn begin_delete(&mut self, block: BlockId) {
        self.delete_begun.insert(block);
    }

    pub(crate) fn ack_delete(&mut self, block: BlockId) {
        self.delete_acked.insert(block);
    }

    /// The least a read that begins now may return.
    pub(crate) fn begin_read(&self, block: BlockId, unit: UnitIndex) -> VersionNumber {
        if self.delete_acked.contains(&block) {
            return GONE;
        }
        self.registers.get(&(block, unit)).map_or(0, |register| register.known)
    }

    /// A read returned `version` (0: nothing there), having begun when `least` was the least.
    pub(crate) fn end_read(
        &mut self,
        who: &str,
        block: BlockId,
        unit: UnitIndex,
        least: VersionNumber,
        version: VersionNumber,
    ) {
        self.counts.reads += 1;
        let may_be_gone = self.delete_begun.contains(&block);
        let register = self.registers.entry((block, unit)).or_default();
        let begun = register.begun;
        let seen = if version == 0 && least > 0 && may_be_gone { GONE } else { version };
        if seen == GONE {
            return;
        }
        if seen < least {
            let least = if least == GONE { "deleted".to_owned() } else { least.to_string() };
            self.violation(format!(
                "stale: {who} read {block} {unit} version {version}, at least {least} was due"
            ));
        } else if seen > begun {
            self.violation(format!("from nowhere: {who} read {block} {unit} version {version} of {begun}"));
        } else if register.forbidden.contains(&seen) {
            self.violation(format!(
                "a fenced writer's version {version} of {block} {unit} was read by {who}"
            ));
        } else {
            register.known = register.known.max(seen);
        }
    }
}

/// The plaintext of a version: its name, then bytes that depend on it; its length does too.
pub(crate) fn plaintext(block: BlockId, unit: UnitIndex, version: VersionNumber, unit_log2: u8) -> Vec<u8> {
    const NAME_BYTES: usize = 18;
    let seed = block.0 ^ (u64::from(unit.0) << 40) ^ version.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut rng = fastrand::Rng::with_seed(seed);
    let full = 1_usize << unit_log2;
    let bytes = if rng.bool() { full } else { rng.usize(NAME_BYTES..=full) };
    let mut plain = vec![0; bytes];
    plain[..8].copy_from_slice(&block.0.to_le_bytes());
    plain[8..10].copy_from_slice(&unit.0.to_le_bytes());
    plain[10..18].copy_from_slice(&version.to_le_bytes());
    rng.fill(&mut plain[NAME_BYTES..]);
    plain
}

/// The version that a plaintext claims to be.
pub(crate) fn claimed_version(plain: &[u8]) -> Option<VersionNumber> {
    plain.get(10..18).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockId = BlockId::new(0, 1);
    const UNIT: UnitIndex = UnitIndex(0);

    #[test]
    fn a_read_below_what_was_acknowledged_before_it_began_is_found() {
        let mut history = History::default();
        let first = history.begin_write(BLOCK, UNIT, Generation(1));
        let early = history.begin_read(BLOCK, UNIT);
        history.ack_write(BLOCK, UNIT, first);
        history.end_read("early", BLOCK, UNIT, early, 0);
        assert!(history.violations.is_empty(), "it overlapped the write");
        let late = history.begin_read(BLOCK, UNIT);
        history.end_read("late", BLOCK, UNIT, late, 0);
        assert_eq!(history.violations.len(), 1);
    }

    #[test]
    fn a_read_below_what_another_read_returned_is_found() {
        let mut history = History::default();
        history.begin_write(BLOCK, UNIT, Generation(1));
        let least = history.begin_read(BLOCK, UNIT);
        history.end_read("one", BLOCK, UNIT, least, 1);
        let least = history.begin_read(BLOCK, UNIT);
        history.end_read("two", BLOCK, UNIT, least, 0);
        assert_eq!(history.violations.len(), 1);
    }

    #[test]
    fn what_a_fenced_writer_began_must_not_be_seen() {
        let mut history = History::default();
        history.ack_fence(BLOCK, Generation(2));
        let version = history.begin_write(BLOCK, UNIT, Generation(1));
        history.ack_write(BLOCK, UNIT, version);
        assert_eq!(history.violations.len(), 1);
    }
}
