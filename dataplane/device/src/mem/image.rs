//! What a disk holds, and the record of how it came to hold it.

use std::{collections::BTreeMap, rc::Rc};

use nova_units::PAGE_BYTES;

use crate::Position;

/// Bytes of a page as an array length.
pub(super) const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// The atom of a power cut: a sector is stored whole or not at all.
pub(super) const SECTOR: usize = 512;
pub(super) const SECTORS_PER_PAGE: usize = PAGE / SECTOR;

/// A trace longer than this is refused: shorten the workload.
const TRACE_EVENTS_MAX: usize = 1 << 20;

/// The bytes of a page; `None` is a page of zeros.
pub(super) type Page = Option<Rc<[u8; PAGE]>>;

/// `bytes` as a page.
pub(super) fn page_of(bytes: &[u8]) -> Page {
    let page: &[u8; PAGE] = bytes.try_into().expect("requests are whole pages");
    page.iter().any(|&byte| byte != 0).then(|| Rc::new(*page))
}

/// `old` with those sectors of `new` that `takes` chooses.
pub(super) fn mix(old: &Page, new: &Page, mut takes: impl FnMut(usize) -> bool) -> Page {
    let mut mixed = old.as_deref().copied().unwrap_or([0; PAGE]);
    let new = new.as_deref().copied().unwrap_or([0; PAGE]);
    for sector in 0..SECTORS_PER_PAGE {
        if takes(sector) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            mixed[range.clone()].copy_from_slice(&new[range]);
        }
    }
    page_of(&mixed)
}

/// The contents of a disk at one moment. Pages never written are zero and take no memory; a clone shares pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskImage {
    pub(super) bytes: u64,
    pub(super) pages: BTreeMap<u64, Rc<[u8; PAGE]>>,
}

impl DiskImage {
    /// A disk of `bytes`, all zero.
    ///
    /// # Panics
    /// When `bytes` is not a multiple of 4096.
    #[must_use]
    pub fn zeroed(bytes: u64) -> Self {
        assert!(bytes.is_multiple_of(PAGE_BYTES), "a disk is whole pages");
        Self { bytes, pages: BTreeMap::new() }
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The page that starts at `at`.
    ///
    /// # Panics
    /// When `at` is not the start of a page of this disk.
    #[must_use]
    pub fn page(&self, at: Position) -> [u8; 4096] {
        assert!(at.is_aligned() && at.0 < self.bytes, "no page at {at}");
        self.get(at.0 / PAGE_BYTES).as_deref().copied().unwrap_or([0; PAGE])
    }

    /// Replaces the page that starts at `at`.
    ///
    /// # Panics
    /// As [`DiskImage::page`].
    pub fn set_page(&mut self, at: Position, page: &[u8; 4096]) {
        assert!(at.is_aligned() && at.0 < self.bytes, "no page at {at}");
        self.put(at.0 / PAGE_BYTES, page_of(page));
    }

    /// Flips one bit: `bit` counts from the start of the disk's byte at `byte`.
    ///
    /// # Panics
    /// When `byte` is not on the disk or `bit` is above 7.
    pub fn flip_bit(&mut self, byte: u64, bit: u8) {
        assert!(byte < self.bytes && bit < 8, "no bit {bit} of byte {byte}");
        let at = Position(byte / PAGE_BYTES * PAGE_BYTES);
        let mut page = self.page(at);
        let index = usize::try_from(byte % PAGE_BYTES).expect("below a page");
        page[index] ^= 1 << bit;
        self.set_page(at, &page);
    }

    /// How many pages are not all zero.
    #[must_use]
    pub fn pages_stored(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn get(&self, number: u64) -> Page {
        self.pages.get(&number).cloned()
    }

    pub(super) fn put(&mut self, number: u64, page: Page) {
        match page {
            Some(page) => self.pages.insert(number, page),
            None => self.pages.remove(&number),
        };
    }
}

/// One step of the life of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// A write reached the device; from here on any of its sectors may be found after a power cut.
    Submitted {
        /// Number of the write.
        write: u64,
        /// Where.
        at: Position,
        /// How long it is, in pages.
        pages: usize,
    },
    /// The write is complete and reads see it; it is not durable yet.
    Completed {
        /// Number of the write.
        write: u64,
    },
    /// These writes are durable.
    Durable {
        /// Numbers of the writes.
        writes: Vec<u64>,
    },
}

/// Every write and flush of a disk since the trace began, to rebuild what a power cut at any step could leave.
///
/// `len()` at the moment a request was acknowledged tells which crash points come after it.
#[derive(Clone, Debug)]
pub struct Trace {
    base: DiskImage,
    events: Vec<TraceEvent>,
    contents: BTreeMap<u64, (u64, Vec<Page>)>,
}

impl Trace {
    pub(super) fn new(base: DiskImage) -> Self {
        Self { base, events: Vec::new(), contents: BTreeMap::new() }
    }

    /// How many events there are: crash points are `0..=len()`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing happened yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events in their order.
    #[must_use]
    pub fn events(&self) -> &[TraceEvent] {
        &self.events
    }

    pub(super) fn push(&mut self, event: TraceEvent) {
        assert!(self.events.len() < TRACE_EVENTS_MAX, "a trace of more than {TRACE_EVENTS_MAX} events");
        self.events.push(event);
    }

    pub(super) fn push_write(&mut self, write: u64, first: u64, pages: &[Page]) {
        self.push(TraceEvent::Submitted { write, at: Position(first * PAGE_BYTES), pages: pages.len() });
        self.contents.insert(write, (first, pages.to_vec()));
    }

    /// What the disk holds when power is cut after the first `events` events. Writes durable by then are there; of
    /// every other write submitted by then, `keeps(write, sector)` says whether each 512-byte sector survives
    /// (sectors count from the start of the write; the later of two surviving sectors at one place wins).
    ///
    /// # Panics
    /// When `events` is above `len()`.
    #[must_use]
    pub fn crash_image(&self, events: usize, mut keeps: impl FnMut(u64, usize) -> bool) -> DiskImage {
        let happened = &self.events[..events];
        // In the order in which reads would see them: completed ones first, then those under way.
        let mut order: Vec<u64> = Vec::new();
        let mut durable: Vec<u64> = Vec::new();
        for event in happened {
            match event {
                TraceEvent::Submitted { .. } => {}
                TraceEvent::Completed { write } => order.push(*write),
                TraceEvent::Durable { writes } => durable.extend(writes),
            }
        }
        durable.sort_unstable();
        let mut completed = order.clone();
        completed.sort_unstable();
        for event in happened {
            if let TraceEvent::Submitted { write, .. } = event
                && completed.binary_search(write).is_err()
            {
                order.push(*write);
            }
        }
        let mut image = self.base.clone();
        for write in order {
            let (first, pages) = &self.contents[&write];
            let is_durable = durable.binary_search(&write).is_ok();
            for (index, page) in pages.iter().enumerate() {
                let number = first + index as u64;
                let takes = |sector| is_durable || keeps(write, index * SECTORS_PER_PAGE + sector);
                let mixed = mix(&image.get(number), page, takes);
                image.put(number, mixed);
            }
        }
        image
    }
}
