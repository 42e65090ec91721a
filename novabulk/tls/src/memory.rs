//! Memory for sealed bytes: wire buffers of what leaves, and stages of what comes.

use core::cell::Cell;
use std::rc::Rc;

use nova_buf::{DmaBuf, Pool};

/// A stage for long payload, which a connection borrows while it comes: 15 records, so that a MiB comes by five receives.
pub(crate) const WIDE_STAGE_BYTES: usize = 256 << 10;
/// Wide stages are at most this part of the memory, all together: half of its buffers of their size. The other half is for what
/// leaves. Otherwise two hosts whose connections all receive could wait for each other: neither would have a buffer to
/// send what the other one waits for.
const WIDE_SHARE: u64 = 16;

/// A clone is another handle to the same memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) pool: Pool,
    wide_lent: Rc<Cell<usize>>,
    wide_most: usize,
}

/// The right to a wide stage.
pub(crate) struct Place(Rc<Cell<usize>>);

impl Memory {
    pub(crate) fn new(pool: Pool) -> Self {
        let most = pool.bytes() / WIDE_SHARE / WIDE_STAGE_BYTES as u64;
        Self { pool, wide_lent: Rc::default(), wide_most: usize::try_from(most).unwrap_or(usize::MAX) }
    }

    /// A wide stage. Nobody waits for one: without it payload comes in shorter pieces.
    pub(crate) fn try_take_wide(&self) -> Option<(DmaBuf, Place)> {
        if self.wide_lent.get() >= self.wide_most {
            return None;
        }
        let stage = self.pool.try_take(WIDE_STAGE_BYTES).ok()?;
        self.wide_lent.set(self.wide_lent.get() + 1);
        Some((stage, Place(Rc::clone(&self.wide_lent))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use nova_buf::{HugePages, PoolOptions};

    use super::*;

    #[test]
    fn half_of_the_buffers_stay_for_what_leaves() {
        let pool = Pool::new(PoolOptions { bytes: 64 << 20, huge: HugePages::Never }).unwrap();
        let class = pool.counters().into_iter().find(|class| class.bytes_each == WIDE_STAGE_BYTES).unwrap();
        let memory = Memory::new(pool);
        let mut taken: Vec<_> = core::iter::from_fn(|| memory.try_take_wide()).collect();
        assert_eq!(taken.len(), class.total / 2);
        taken.pop();
        assert!(memory.try_take_wide().is_some(), "one that came back is lent again");
    }
}
