//! A buffer with one owner.

use core::{
    fmt,
    ops::{Deref, DerefMut},
};
use std::rc::Rc;

use nova_units::{PAGE_BYTES, PageSum};

use crate::{
    CLASS_BYTES, SharedBuf,
    pool::{Chunk, Inner},
};

/// A page, as a length of memory.
pub(crate) const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// What a returned buffer holds in debug builds, so that a use after return shows.
#[cfg(debug_assertions)]
const POISON: u8 = 0xA5;

/// A buffer lent by a [`Pool`](crate::Pool): 4 KiB aligned, with one owner, back in its pool when dropped.
///
/// While a device works on it, it is owned by that operation until its last completion.
///
/// It can carry the sums of its pages, so that whoever needs them later does not go over the bytes again
/// (docs/adr/0019). Whatever may write to it, or changes its length, makes it forget them.
pub struct DmaBuf {
    pool: Rc<Inner>,
    chunk: Chunk,
    len: usize,
    page_sums: Option<Rc<[PageSum]>>,
}

impl DmaBuf {
    pub(crate) fn new(pool: Rc<Inner>, chunk: Chunk, len: usize) -> Self {
        assert!(len <= CLASS_BYTES[chunk.class], "a lent buffer holds what was asked for");
        Self { pool, chunk, len, page_sums: None }
    }

    /// Bytes the buffer can hold: the size of its class.
    #[must_use]
    pub fn capacity(&self) -> usize {
        CLASS_BYTES[self.chunk.class]
    }

    /// Makes the buffer `len` bytes long when it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.set_len(self.len.min(len));
    }

    /// Makes the buffer `len` bytes long. Bytes that were not part of it before hold what an earlier user left.
    ///
    /// # Panics
    /// When `len` is above the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "{len} bytes in a buffer of {}", self.capacity());
        self.page_sums = None;
        self.len = len;
    }

    /// Takes the sums of its pages, which the caller computed of these bytes or knows to be theirs.
    ///
    /// # Panics
    /// When the buffer is not that many whole pages.
    pub fn set_page_sums(&mut self, sums: Rc<[PageSum]>) {
        assert!(sums.len() * PAGE == self.len, "{} sums for {} bytes", sums.len(), self.len);
        self.page_sums = Some(sums);
    }

    /// The sums of its pages, when it carries them.
    #[must_use]
    pub fn page_sums(&self) -> Option<&[PageSum]> {
        self.page_sums.as_deref()
    }

    /// Gives up the right to write, for the right to share.
    #[must_use]
    pub fn freeze(self) -> SharedBuf {
        SharedBuf::new(self)
    }

    /// Index in [`Pool::regions`](crate::Pool::regions) of the piece that holds this buffer.
    #[must_use]
    pub fn region_index(&self) -> usize {
        self.pool.region_of(self.chunk)
    }

    /// The [`Pool::id`](crate::Pool::id) of its pool.
    #[must_use]
    pub fn pool_id(&self) -> u64 {
        self.pool.id()
    }
}

impl Deref for DmaBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `chunk` is `capacity` bytes of the arena, which `pool` keeps mapped; `len` is at most that. All of
        // them are initialised (zero when mapped). The pool lends a chunk to one `DmaBuf` at a time.
        unsafe { core::slice::from_raw_parts(self.chunk.address.as_ptr(), self.len) }
    }
}

impl DerefMut for DmaBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.page_sums = None;
        // SAFETY: as in `deref`; `&mut self` makes this the only slice of the chunk.
        unsafe { core::slice::from_raw_parts_mut(self.chunk.address.as_ptr(), self.len) }
    }
}

impl Drop for DmaBuf {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        {
            self.len = self.capacity();
            self.fill(POISON);
        }
        self.pool.give_back(self.chunk);
    }
}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuf")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
