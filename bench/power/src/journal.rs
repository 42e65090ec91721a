//! Where the writer notes, durably and beside the store, what the store has acknowledged.
//!
//! A page a note, one after another: `seq u64, committed u64, checksum u32`. The drive that loses power holds both, so
//! whatever the notes of a crash image say, its store must have.

use nova_buf::Pool;
use nova_device::uring::UringDisk;
use nova_device::{Disk as _, Durability, Position};
use nova_units::{IoClass, PAGE_BYTES, Seq};

/// What was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// Every entry up to this one.
    pub(crate) acknowledged: Seq,
    /// A checkpoint said so with every entry up to this one committed.
    pub(crate) committed: Seq,
}

const BYTES: usize = 20;
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

impl Note {
    fn encode(self, page: &mut [u8]) {
        page.fill(0);
        page[..8].copy_from_slice(&self.acknowledged.0.to_le_bytes());
        page[8..16].copy_from_slice(&self.committed.0.to_le_bytes());
        let sum = crc32fast::hash(&page[..16]);
        page[16..BYTES].copy_from_slice(&sum.to_le_bytes());
    }

    /// None for a page that holds no whole note.
    fn decode(page: &[u8]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
        let sum = u32::from_le_bytes(page[16..BYTES].try_into().expect("four bytes"));
        let note = Self { acknowledged: Seq(word(0)), committed: Seq(word(8)) };
        (sum == crc32fast::hash(&page[..16]) && note.acknowledged > Seq(0)).then_some(note)
    }
}

/// Notes on a disk of their own.
pub(crate) struct Journal<'a> {
    disk: &'a UringDisk,
    pool: &'a Pool,
    next: u64,
}

impl<'a> Journal<'a> {
    pub(crate) fn new(disk: &'a UringDisk, pool: &'a Pool) -> Self {
        Self { disk, pool, next: 0 }
    }

    /// True when no further note fits.
    pub(crate) fn is_full(&self) -> bool {
        (self.next + 1) * PAGE_BYTES > self.disk.bytes()
    }

    /// Notes durably.
    pub(crate) async fn note(&mut self, note: Note) -> anyhow::Result<()> {
        let mut page = self.pool.take(PAGE).await;
        note.encode(&mut page);
        let at = Position(self.next * PAGE_BYTES);
        self.next += 1;
        Ok(self.disk.write(IoClass::Client, at, page.freeze(), Durability::Synced).await?)
    }

    /// The last note of an unbroken run from the first page; the default when there is none.
    pub(crate) async fn last(&self) -> anyhow::Result<Note> {
        let mut last = Note::default();
        for index in 0..self.disk.bytes() / PAGE_BYTES {
            let page = self.pool.take(PAGE).await;
            let (read, page) = self.disk.read(IoClass::Client, Position(index * PAGE_BYTES), page).await;
            read?;
            match Note::decode(&page) {
                Some(note) => last = note,
                None => break,
            }
        }
        Ok(last)
    }
}
