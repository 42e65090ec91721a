//! Stages for long payload, which connections borrow while it comes.

use core::cell::Cell;
use std::rc::Rc;

use nova_buf::{DmaBuf, Pool};

/// One of them: 15 records, so that a MiB comes by five receives.
pub(crate) const STAGE_BYTES: usize = 256 << 10;
/// All of them together are at most this part of the memory for sealed bytes: half of its buffers of this size. The other
/// half is for what leaves. Otherwise two hosts whose connections all receive could wait for each other: neither would
/// have a buffer to send what the other one waits for.
const SHARE: u64 = 16;

/// How many are lent.
#[derive(Clone, Debug)]
pub(crate) struct WideStages {
    lent: Rc<Cell<usize>>,
    most: usize,
}

/// The right to one of them.
pub(crate) struct Place(Rc<Cell<usize>>);

impl WideStages {
    /// Those of this memory.
    pub(crate) fn of(memory: &Pool) -> Self {
        let most = memory.bytes() / SHARE / STAGE_BYTES as u64;
        Self { lent: Rc::default(), most: usize::try_from(most).unwrap_or(usize::MAX) }
    }

    /// One of them; without one payload comes in shorter pieces, so nobody waits.
    pub(crate) fn try_take(&self, memory: &Pool) -> Option<(DmaBuf, Place)> {
        if self.lent.get() >= self.most {
            return None;
        }
        let stage = memory.try_take(STAGE_BYTES).ok()?;
        self.lent.set(self.lent.get() + 1);
        Some((stage, Place(Rc::clone(&self.lent))))
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
        let memory = Pool::new(PoolOptions { bytes: 64 << 20, huge: HugePages::Never }).unwrap();
        let wide = WideStages::of(&memory);
        let class = memory.counters().into_iter().find(|class| class.bytes_each == STAGE_BYTES).unwrap();
        let mut taken: Vec<_> = core::iter::from_fn(|| wide.try_take(&memory)).collect();
        assert_eq!(taken.len(), class.total / 2);
        taken.pop();
        assert!(wide.try_take(&memory).is_some(), "one that came back is lent again");
    }
}
