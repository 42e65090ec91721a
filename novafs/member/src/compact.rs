//! Compaction beside everything else: a device of which few slots are empty has hardly used ones emptied, so that its
//! free bytes are of use to units of any size.

use std::rc::Rc;
use std::time::Duration;

use nova_device::{Clock, Peers, Shard};
use novafs_store::StoreError;

use crate::Member;

/// How often it is looked whether the device wants it.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A pass is followed by a rest of so many times its length: it reads the whole tree, and may have emptied little.
const REST: u32 = 9;

impl<S: Shard, P: Peers> Member<S, P> {
    /// Compacts whenever the store wants it, until the member stops or its device fails.
    pub(crate) async fn run_compaction(self: Rc<Self>) {
        let clock = self.shard.clock();
        let mut rest = LOOK_EVERY;
        loop {
            clock.sleep_until(clock.now() + rest).await;
            if self.stopped.get() || self.store.has_failed() {
                return;
            }
            rest = LOOK_EVERY;
            if !self.store.wants_compaction() {
                continue;
            }
            let begun = clock.now();
            let done = self.store.compact().await;
            rest = rest.max(clock.now().saturating_sub(begun) * REST);
            // The machine hears of a failure with its next write, scrub tells of damaged metadata, and whatever else
            // held it up is tried again.
            if matches!(done, Err(StoreError::DeviceFailed | StoreError::Closed)) {
                return;
            }
        }
    }
}
