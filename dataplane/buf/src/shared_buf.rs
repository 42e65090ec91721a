//! A frozen buffer with many owners.

use core::{
    fmt,
    ops::{Deref, Range},
};
use std::rc::Rc;

use nova_units::PageSum;

use crate::{DmaBuf, dma_buf::PAGE};

/// A frozen [`DmaBuf`], or a part of one. A clone shares the bytes; the last owner returns them to the pool.
#[derive(Clone)]
pub struct SharedBuf {
    whole: Rc<DmaBuf>,
    start: usize,
    end: usize,
}

impl SharedBuf {
    pub(crate) fn new(whole: DmaBuf) -> Self {
        let end = whole.len();
        Self { whole: Rc::new(whole), start: 0, end }
    }

    /// The bytes of `range`, counted from the start of this part, without a copy.
    ///
    /// # Panics
    /// When `range` is reversed or ends past this part.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let Range { start, end } = range;
        assert!(start <= end && end <= self.len(), "part {start}..{end} of {} bytes", self.len());
        Self { whole: Rc::clone(&self.whole), start: self.start + start, end: self.start + end }
    }

    /// The writable buffer again, when nobody else holds a part of it and this is the whole of it.
    ///
    /// # Errors
    /// The buffer itself, when it is shared or a part.
    pub fn try_thaw(self) -> Result<DmaBuf, Self> {
        let Self { whole, start, end } = self;
        if start != 0 || end != whole.len() {
            return Err(Self { whole, start, end });
        }
        Rc::try_unwrap(whole).map_err(|whole| Self { whole, start, end })
    }

    /// The sums of its pages, when the whole carries them and this part is whole pages of it.
    #[must_use]
    pub fn page_sums(&self) -> Option<&[PageSum]> {
        let sums = self.whole.page_sums()?;
        let aligned = self.start.is_multiple_of(PAGE) && self.end.is_multiple_of(PAGE);
        aligned.then(|| &sums[self.start / PAGE..self.end / PAGE])
    }

    /// Index in [`Pool::regions`](crate::Pool::regions) of the piece that holds this buffer.
    #[must_use]
    pub fn region_index(&self) -> usize {
        self.whole.region_index()
    }

    /// The [`Pool::id`](crate::Pool::id) of its pool.
    #[must_use]
    pub fn pool_id(&self) -> u64 {
        self.whole.pool_id()
    }
}

impl Deref for SharedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.whole[self.start..self.end]
    }
}

impl From<DmaBuf> for SharedBuf {
    fn from(buf: DmaBuf) -> Self {
        buf.freeze()
    }
}

impl fmt::Debug for SharedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuf")
            .field("start", &self.start)
            .field("len", &self.len())
            .field("owners", &Rc::strong_count(&self.whole))
            .finish_non_exhaustive()
    }
}
