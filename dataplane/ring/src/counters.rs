//! The page of counters: the service writes, the peer reads, nobody waits.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::Mapping;

const WORDS: usize = 512;

/// Declares the counters; a counter keeps its place for ever, new ones go to the end.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $index:literal, $text:literal;)*) => {
        /// What a data plane counts since its start.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Counter { $($(#[$doc])* $name = $index,)* }

        impl Counter {
            /// Every counter, in order of place.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            const fn index(self) -> usize {
                match self { $(Self::$name => $index,)* }
            }
        }
    };
}

counters! {
    /// CLOCK_BOOTTIME in milliseconds when the service last turned; not a counter but its sign of life.
    AliveBoottimeMs = 0, "alive_boottime_ms";
    /// Plaintext bytes accepted from programs and durable on all members.
    BytesWritten = 1, "bytes_written";
    /// Plaintext bytes answered to programs.
    BytesRead = 2, "bytes_read";
    /// Units sealed at this edge.
    UnitsSealed = 3, "units_sealed";
    /// Units opened at this edge.
    UnitsOpened = 4, "units_opened";
    /// Pages whose CRC did not match.
    PagesBad = 5, "pages_bad";
    /// Pages written anew from another replica.
    PagesRepaired = 6, "pages_repaired";
    /// Batches of the log made durable.
    WalBatches = 7, "wal_batches";
    /// Flushes of devices.
    Flushes = 8, "flushes";
    /// Frames sent to other hosts.
    FramesSent = 9, "frames_sent";
    /// Frames whose checksum did not match.
    CrcFailures = 10, "crc_failures";
    /// Entries committed in groups where this host is primary.
    Commits = 11, "commits";
    /// Times a write waited for a group without a primary.
    GroupStalls = 12, "group_stalls";
    /// Longest such wait, in milliseconds.
    GroupStallMsMax = 13, "group_stall_ms_max";
    /// Bytes written to devices, logs and records included.
    DeviceBytesWritten = 14, "device_bytes_written";
    /// Bytes read from devices.
    DeviceBytesRead = 15, "device_bytes_read";
    /// Frames received from other hosts.
    FramesReceived = 16, "frames_received";
    /// Connections other hosts lost to a broken rule.
    PeersRefused = 17, "peers_refused";
    /// Programs detached for a broken rule.
    ClientsBroken = 18, "clients_broken";
    /// Programs attached now.
    ClientsAttached = 19, "clients_attached";
    /// Units copied to a joining member.
    UnitsBackfilled = 20, "units_backfilled";
    /// Checkpoints written.
    Checkpoints = 21, "checkpoints";
    /// Units whose seal did not open: not authentic.
    UnitsNotAuthentic = 22, "units_not_authentic";
    /// Reads that went to another member after a refusal or time-out.
    ReadsRetried = 23, "reads_retried";
    /// Reads asked of a second member because the first took longer than it mostly does.
    ReadsHedged = 28, "reads_hedged";
    /// Of those, how many the second answered first.
    HedgesWon = 29, "hedges_won";
    /// Reads that were not asked twice because too many were lately.
    HedgesHeldBack = 30, "hedges_held_back";
    /// Entries that a primary here sent along a chain of members.
    EntriesChained = 31, "entries_chained";
    /// Of those, how many the end of the chain had to be sent after all.
    ChainsBroken = 32, "chains_broken";
    /// Slots of devices that compaction emptied.
    SlotsEmptied = 33, "slots_emptied";
    /// Bytes of units that it moved for that.
    CompactedBytes = 34, "compacted_bytes";
    /// Connections that were not made secure: no certificate of ours, another protocol, a handshake that did not end.
    HandshakesFailed = 35, "handshakes_failed";
    /// Connections of hosts that called themselves by a number that is not that of their certificate.
    Impostors = 36, "impostors";
    /// Bytes sealed for other hosts, each as often as it was sent.
    WireBytesSealed = 37, "wire_bytes_sealed";
    /// Bytes of other hosts that were opened.
    WireBytesOpened = 38, "wire_bytes_opened";
    /// Bytes to and from other hosts that were copied beside that, in this process.
    WireBytesCopied = 39, "wire_bytes_copied";
    /// Stored bytes that scrub read and checked.
    ScrubBytes = 40, "scrub_bytes";
    /// Units of those.
    ScrubUnits = 41, "scrub_units";
    /// Times scrub went over the whole device.
    ScrubPasses = 42, "scrub_passes";
    /// When the pass under way began, in milliseconds since 1970; 0 when none is. Not a counter.
    ScrubBeganMs = 43, "scrub_began_ms";
    /// When the last complete pass began: everything older was verified since then; 0 when there was none.
    ScrubLastBeganMs = 44, "scrub_last_began_ms";
    /// When it ended.
    ScrubLastEndedMs = 45, "scrub_last_ended_ms";
    /// Ranges compared with other members.
    ScrubCompares = 46, "scrub_compares";
    /// Members that did not say what they hold of one.
    ScrubComparesUnanswered = 47, "scrub_compares_unanswered";
    /// Records that were missing or old here, or are disputed among members.
    DifferencesFound = 48, "differences_found";
    /// Those that were taken from another member.
    DifferencesSettled = 49, "differences_settled";
    /// Metadata pages and superblocks that were bad on the device and written again from memory.
    MetadataRewritten = 50, "metadata_rewritten";
    /// Times scrub came to metadata that is damaged for good.
    MetadataDamaged = 51, "metadata_damaged";
    /// Counts the windows of ten seconds in which enough entries were measured.
    PaceWindow = 56, "pace_window";
    /// Entries in the last one. Not a counter, as the two that follow.
    PaceEntries = 57, "pace_entries";
    /// Half of them were durable within this time, in microseconds.
    PaceMedianUs = 58, "pace_median_us";
    /// All but one in a hundred were, in microseconds.
    PaceP99Us = 59, "pace_p99_us";
}

const _: () = assert!(Counter::ALL.len() <= WORDS, "the counters fit their page");

/// The counters of one attachment.
#[derive(Clone, Debug)]
pub struct Counters {
    base: NonNull<u8>,
    _mapping: Arc<Mapping>,
}

// SAFETY: all access is by atomics; the mapping lives as long as the Arc.
unsafe impl Send for Counters {}
// SAFETY: as above.
unsafe impl Sync for Counters {}

impl Counters {
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: usize) -> Self {
        Self { base: mapping.at(offset, WORDS * 8), _mapping: Arc::clone(mapping) }
    }

    fn word(&self, counter: Counter) -> &AtomicU64 {
        // SAFETY: `new` checked that the page is inside the mapping, and the index is under its 512 words.
        let at = unsafe { self.base.cast::<AtomicU64>().add(counter.index()) };
        // SAFETY: in bounds and aligned by the line above; an atomic may change under a shared reference.
        unsafe { at.as_ref() }
    }

    /// The value now. A reader takes it as a claim of the peer, good for reports and nothing else.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.word(counter).load(Ordering::Relaxed)
    }

    /// Sets the value; only the service writes.
    pub fn set(&self, counter: Counter, value: u64) {
        self.word(counter).store(value, Ordering::Relaxed);
    }

    /// Every counter with its name and value.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|&counter| (counter, self.get(counter)))
    }
}
